//! The service in one process with its log and store in a data dir.

use super::damage;
use super::receivers::Receivers;
use super::role::Roles;
use super::rules_keeper::{First, own_documents};
use super::service::{
    Files, HttpSettings, KeeperInputs, PartitionService, Run, Service, Serving, bind, serve, sing,
};
use super::telling::Telling;
use crate::adapters::embedded::notification_log::FileNotificationLog;
use crate::adapters::embedded::{Embedded, EmbeddedFeed, EmbeddedStore};
use crate::core::Timestamp;
use crate::core::rule::RuleSet;
use crate::core::vocab::limits::Limits;
use crate::driver::command::{self, Publish, StartError};
use crate::driver::metrics::OwnerMetrics;
use crate::driver::owner::{self, Owner};
use crate::driver::ports::{Clock, Intake, PortError, REQUESTS_KEPT, RequestId};
use crate::driver::quota::OwnershipQuota;
use crate::driver::rule_documents::RuleDocuments;
use crate::pipeline::document::{self, Documents};
use anyhow::Result;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The components of an embedded service.
pub struct EmbeddedParts<'a, C> {
    pub data_dir: &'a Path,
    pub door: HttpSettings,
    pub limits: Limits,
    pub rules: Files,
    pub clock: C,
    pub publish: Publish,
    /// The receivers; without them no notifications are sent.
    pub receivers: Option<Receivers>,
}

impl<C> std::fmt::Debug for EmbeddedParts<'_, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

/// Binds the address, restores the durable state, and starts the service.
pub async fn start<C: Clock + Clone + Send + 'static>(
    parts: EmbeddedParts<'_, C>,
) -> Result<Service<Embedded>> {
    let listener = bind(&parts.door).await?;
    let store = damage::caught_in_time(parts.data_dir, |dir| Ok(Embedded::open(dir)?))?;
    let is_singing = parts.receivers.as_ref().is_some_and(Receivers::has_heartbeat);
    let telling = match &parts.receivers {
        Some(receivers) => Telling::start(receivers, parts.clock.clone(), |name| {
            Ok((store.clone(), FileNotificationLog::new(parts.data_dir, name), None))
        })?,
        None => Telling::default(),
    };
    let (clock, owner_metrics) = (parts.clock.clone(), Arc::new(OwnerMetrics::default()));
    let limits = parts.limits.clone();
    let outages = owner_metrics.outages.clone();
    let alerts = Box::new(telling.registry.clone());
    let session_parts = owner::SessionParts {
        feed: EmbeddedFeed::new(store.clone(), parts.clock.clone(), outages.clone(), alerts),
        store: EmbeddedStore::new(store.clone(), outages),
        clock: parts.clock,
        limits: parts.limits,
        rules: None,
        lease: ALONE_FOR,
        snapshot_every: owner::SNAPSHOT_EVERY,
        is_rolling_up: false,
        share: OwnershipQuota::new(1),
        owner_metrics: owner_metrics.clone(),
    };
    let (sender, commands) = command::commands();
    let owner = Owner::new(session_parts, commands, parts.publish);
    let (owner, book) = damage::caught(parts.data_dir, || Ok(caught_up(owner, &parts.rules)?))?;
    let appended = appended_before(&store, owner_metrics.log_time().min(clock.now()))?;
    let run: Run = Box::new(move || owner.run());
    owner_metrics.standing_by.add(1);
    let partition_services = vec![PartitionService { worker: sender.clone(), store, run }];
    let kept = KeeperInputs { files: parts.rules, store: None, book, first: First::default() };
    let intake: Arc<dyn Intake> = Arc::new(sender);
    let canary = if is_singing { Some(sing(&intake, 1, clock)?) } else { None };
    serve(
        Serving {
            listener,
            access: parts.door.access,
            limits,
            partition_services,
            owner_metrics,
            kept,
            fleet: None,
            canary,
            roles: Roles::ALL,
            telling,
            appended,
        },
        intake,
    )
}

/// Lease duration of the embedded service. No other process competes for the lease, so it is rarely renewed.
const ALONE_FOR: Duration = Duration::from_secs(3_600);

type EmbeddedOwner<C> = Owner<EmbeddedFeed<C>, EmbeddedStore, C>;

/// Applies the log of a data dir and puts the rules of the files in force. Returns the owner, and the documents of
/// its rules.
fn caught_up<C: Clock>(
    mut owner: EmbeddedOwner<C>,
    files: &Files,
) -> Result<(EmbeddedOwner<C>, RuleDocuments), StartError> {
    owner.catch_up()?;
    let mut book = RuleDocuments::default();
    if let Some(engine) = owner.inspect() {
        let (documents, rules) = own_rules(files, engine.rules());
        book.documents = documents;
        if let Some(rules) = rules {
            owner.want(rules);
            owner.catch_up()?;
        }
    }
    Ok((owner, book))
}

/// Returns the requests that an earlier process appended, each with its age. The caller passes log time or an
/// earlier time as `now`, because this machine's clock may be wrong during startup.
fn appended_before(store: &Embedded, now: Timestamp) -> Result<Vec<(Duration, RequestId)>, PortError> {
    let age = |stamp: Timestamp| Duration::from_millis((now - stamp).ms().max(0) as u64);
    let requests = store.requests(now - REQUESTS_KEPT)?;
    Ok(requests.into_iter().map(|(stamp, id)| (age(stamp), id)).collect())
}

/// Returns the wanted documents of a single process, and their rules. If the files and the documents that were
/// added over the API do not compile together, the rules in force stay, as they do in a running process; the
/// keeper reports why.
fn own_rules(files: &Files, in_force: &RuleSet) -> (Documents, Option<RuleSet>) {
    let all = own_documents(files.documents.clone(), in_force, files.is_applying);
    match document::compile(&all) {
        Ok(rules) => (all, Some(rules)),
        Err(_) => (in_force.files.iter().cloned().collect(), None),
    }
}
