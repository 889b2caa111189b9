//! Typical rules of clusters and hosts, and their conversions.

use super::*;

const RULES: &str = r#"groups:
- name: kubernetes-apps
  rules:
  - alert: KubePodCrashLooping
    expr: max_over_time(kube_pod_container_status_waiting_reason{reason="CrashLoopBackOff", job="kube-state-metrics"}[5m]) >= 1
    for: 15m
    labels: { severity: warning }
    annotations:
      description: 'Pod {{ $labels.namespace }}/{{ $labels.pod }} ({{ $labels.container }}) is in waiting state.'
  - alert: KubePodNotReady
    expr: |
      sum by (namespace, pod, cluster) (
        max by (namespace, pod, cluster) (kube_pod_status_phase{job="kube-state-metrics", phase=~"Pending|Unknown|Failed"})
        * on (namespace, pod, cluster) group_left (owner_kind) topk by (namespace, pod, cluster) (
          1, max by (namespace, pod, owner_kind, cluster) (kube_pod_owner{owner_kind!="Job"})
        )
      ) > 0
    for: 15m
  - alert: KubeDeploymentReplicasMismatch
    expr: |
      (
        kube_deployment_spec_replicas{job="kube-state-metrics"}
          > kube_deployment_status_replicas_available{job="kube-state-metrics"}
      ) and (
        changes(kube_deployment_status_replicas_updated{job="kube-state-metrics"}[10m]) == 0
      )
    for: 15m
  - alert: KubeDeploymentRolloutStuck
    expr: kube_deployment_status_condition{condition="Progressing", status="false", job="kube-state-metrics"} != 0
    for: 15m
  - alert: KubeJobFailed
    expr: kube_job_failed{job="kube-state-metrics"} > 0
    for: 15m
  - alert: KubeContainerOOMKilled
    expr: |
      (kube_pod_container_status_restarts_total - kube_pod_container_status_restarts_total offset 10m >= 1)
      and ignoring (reason) min_over_time(kube_pod_container_status_last_terminated_reason{reason="OOMKilled"}[10m]) == 1
  - alert: KubePodRestarts
    expr: increase(kube_pod_container_status_restarts_total{job="kube-state-metrics"}[1h]) > 5
- name: kubernetes-system
  rules:
  - alert: KubeAPIDown
    expr: absent(up{job="apiserver"} == 1)
    for: 15m
  - alert: KubeSchedulerDown
    expr: absent(up{job="kube-scheduler"})
    for: 15m
    labels: { severity: critical }
  - alert: KubeClientErrors
    expr: |
      (sum(rate(rest_client_requests_total{code=~"5.."}[5m])) by (cluster, instance, job, namespace)
        /
      sum(rate(rest_client_requests_total[5m])) by (cluster, instance, job, namespace))
      > 0.01
    for: 15m
    annotations:
      description: "Kubernetes API server client '{{ $labels.job }}/{{ $labels.instance }}' is experiencing {{ $value | humanizePercentage }} errors."
  - alert: KubeAPITerminatedRequests
    expr: |
      sum by(cluster) (rate(apiserver_request_terminations_total{job="apiserver"}[10m])) / ( sum by(cluster) (rate(apiserver_request_total{job="apiserver"}[10m])) + sum by(cluster) (rate(apiserver_request_terminations_total{job="apiserver"}[10m])) ) > 0.20
    for: 5m
  - alert: KubeletTooManyPods
    expr: count by (cluster, node) (kube_pod_info == 1) > 100
  - record: cluster_quantile:apiserver_request_slo_duration_seconds:histogram_quantile
    expr: histogram_quantile(0.99, sum by (cluster, le, resource) (rate(apiserver_request_slo_duration_seconds_bucket[5m])))
    labels: { quantile: "0.99" }
  - alert: SlowRequests
    expr: cluster_quantile:apiserver_request_slo_duration_seconds:histogram_quantile{quantile="0.99"} > 1
- name: node-exporter
  rules:
  - record: instance:node_cpu_utilisation:rate5m
    expr: 1 - avg without (cpu) (sum without (mode) (rate(node_cpu_seconds_total{job="node", mode=~"idle|iowait|steal"}[5m])))
  - record: instance:node_vmstat_pgmajfault:rate5m
    expr: rate(node_vmstat_pgmajfault{job="node"}[5m])
  - alert: NodeHighCPU
    expr: instance:node_cpu_utilisation:rate5m * 100 > 90
    for: 15m
  - alert: NodeMemoryMajorPagesFaults
    expr: instance:node_vmstat_pgmajfault:rate5m > 500
    for: 15m
  - alert: NodeFilesystemSpaceFillingUp
    expr: |
      (
        node_filesystem_avail_bytes{job="node",fstype!=""} / node_filesystem_size_bytes{job="node",fstype!=""} * 100 < 15
      and
        predict_linear(node_filesystem_avail_bytes{job="node",fstype!=""}[6h], 24*60*60) < 0
      )
    for: 1h
  - alert: NodeFilesystemFillsUp
    expr: predict_linear(node_filesystem_avail_bytes{job="node",fstype!=""}[6h], 24*60*60) < 0
    for: 1h
  - alert: NodeNetworkReceiveErrs
    expr: rate(node_network_receive_errs_total{job="node"}[2m]) / rate(node_network_receive_packets_total{job="node"}[2m]) > 0.01
    for: 1h
  - alert: NodeTextFileCollectorScrapeError
    expr: node_textfile_scrape_error{job="node"} == 1
  - alert: NodeClockNotSynchronising
    expr: min_over_time(node_timex_sync_status{job="node"}[5m]) == 0 and node_timex_maxerror_seconds{job="node"} >= 16
    for: 10m
  - alert: NodeClockSkewDetected
    expr: |
      (node_timex_offset_seconds{job="node"} > 0.05 and deriv(node_timex_offset_seconds{job="node"}[5m]) >= 0)
      or
      (node_timex_offset_seconds{job="node"} < -0.05 and deriv(node_timex_offset_seconds{job="node"}[5m]) <= 0)
  - alert: NodeClockFarOff
    expr: node_timex_offset_seconds{job="node"} > 0.05 or node_timex_offset_seconds{job="node"} < -0.05
  - alert: NodeSystemdServiceFailed
    expr: node_systemd_unit_state{job="node", state="failed"} == 1
  - alert: NodeDockerDown
    expr: node_systemd_unit_state{name="docker.service", state="active"} == 0
- name: prometheus
  interval: 30s
  rules:
  - alert: TargetDown
    expr: 100 * (count(up == 0) BY (cluster, job) / count(up) BY (cluster, job)) > 10
  - alert: PrometheusNotIngestingSamples
    expr: |
      (
        sum without(type) (rate(prometheus_tsdb_head_samples_appended_total{job="prometheus"}[5m])) <= 0
      and
        prometheus_target_metadata_cache_entries{job="prometheus"} > 0
      )
  - alert: PrometheusBadConfig
    expr: |
      # Without max_over_time, failed scrapes could create false negatives.
      max_over_time(prometheus_config_last_reload_successful{job="prometheus"}[5m]) == 0
  - alert: PrometheusNotConnected
    expr: max_over_time(prometheus_notifications_alertmanagers_discovered{job="prometheus"}[5m]) < 1
  - alert: PrometheusRuleFailures
    expr: increase(prometheus_rule_evaluation_failures_total{job="prometheus"}[5m]) > 0
  - alert: PrometheusNoRuleEvaluations
    expr: increase(prometheus_rule_evaluations_total{job="prometheus"}[5m]) == 0
  - alert: PrometheusRequestsSlow
    expr: histogram_quantile(0.9, sum by (le, job) (rate(prometheus_http_request_duration_seconds_bucket{job="prometheus"}[5m]))) > 1
  - alert: Watchdog
    expr: vector(1)
    labels: { severity: none }
"#;

/// For each alert, its expression or the reason why it is left out.
const OUTCOMES: [(&str, Result<&str, &str>); 34] = [
    (
        "KubePodCrashLooping",
        Ok(
            "max(kube_pod_container_status_waiting_reason{reason=\"CrashLoopBackOff\",job=\"kube-state-metrics\"}[5m]) >= 1",
        ),
    ),
    ("KubePodNotReady", Err("`topk` with a parameter has no counterpart")),
    (
        "KubeDeploymentReplicasMismatch",
        Err("one side has a key per series of `kube_deployment_spec_replicas`"),
    ),
    (
        "KubeDeploymentRolloutStuck",
        Ok(
            "last(kube_deployment_status_condition{condition=\"Progressing\",status=\"false\",job=\"kube-state-metrics\"}[5m]) != 0",
        ),
    ),
    ("KubeJobFailed", Ok("last(kube_job_failed{job=\"kube-state-metrics\"}[5m]) > 0")),
    ("KubeContainerOOMKilled", Err("`kube_pod_container_status_restarts_total` is a counter")),
    (
        "KubePodRestarts",
        Ok("sum(kube_pod_container_status_restarts_total{job=\"kube-state-metrics\"}[1h]) > 5"),
    ),
    ("KubeAPIDown", Err("`absent` of an expression has no counterpart")),
    ("KubeSchedulerDown", Ok("count(up{job=\"kube-scheduler\"}[5m]) by () == 0")),
    (
        "KubeClientErrors",
        Ok(
            "(rate(rest_client_requests_total{code=~\"5..\"}[5m]) by (cluster, instance, job, namespace) / rate(rest_client_requests_total[5m]) by (cluster, instance, job, namespace)) > 0.01",
        ),
    ),
    (
        "KubeAPITerminatedRequests",
        Ok(
            "(rate(apiserver_request_terminations_total{job=\"apiserver\"}[10m]) by (cluster) / (rate(apiserver_request_total{job=\"apiserver\"}[10m]) by (cluster) + rate(apiserver_request_terminations_total{job=\"apiserver\"}[10m]) by (cluster))) > 0.2 and count(apiserver_request_terminations_total{job=\"apiserver\"}[10m]) by (cluster) > 0 and count(apiserver_request_total{job=\"apiserver\"}[10m]) by (cluster) > 0",
        ),
    ),
    ("KubeletTooManyPods", Err("`==` within a value has no counterpart")),
    ("SlowRequests", Err("which is left out: its `labels` have no counterpart")),
    ("NodeHighCPU", Err("which is left out: `without` has no counterpart")),
    ("NodeMemoryMajorPagesFaults", Ok("last(instance:node_vmstat_pgmajfault:rate5m[1m]) > 500")),
    ("NodeFilesystemSpaceFillingUp", Err("one side has a key per series of `node_filesystem_avail_bytes`")),
    (
        "NodeFilesystemFillsUp",
        Ok("forecast(avg(node_filesystem_avail_bytes{job=\"node\",fstype!=\"\"}[5m]), 6h, 1d) < 0"),
    ),
    ("NodeNetworkReceiveErrs", Err("one side has a key per series of `node_network_receive_errs_total`")),
    ("NodeTextFileCollectorScrapeError", Ok("last(node_textfile_scrape_error{job=\"node\"}[5m]) == 1")),
    ("NodeClockNotSynchronising", Err("one side has a key per series of `node_timex_sync_status`")),
    ("NodeClockSkewDetected", Err("`deriv` has no counterpart")),
    (
        "NodeClockFarOff",
        Ok(
            "(last(node_timex_offset_seconds{job=\"node\"}[5m]) > 0.05) or (last(node_timex_offset_seconds{job=\"node\"}[5m]) < -0.05)",
        ),
    ),
    ("NodeSystemdServiceFailed", Ok("last(node_systemd_unit_state{job=\"node\",state=\"failed\"}[5m]) == 1")),
    (
        "NodeDockerDown",
        Ok("last(node_systemd_unit_state{exported_name=\"docker.service\",state=\"active\"}[5m]) == 0"),
    ),
    ("TargetDown", Err("`==` within a value has no counterpart")),
    ("PrometheusNotIngestingSamples", Err("`without` has no counterpart")),
    ("PrometheusBadConfig", Ok("max(prometheus_config_last_reload_successful{job=\"prometheus\"}[5m]) == 0")),
    (
        "PrometheusNotConnected",
        Ok("max(prometheus_notifications_alertmanagers_discovered{job=\"prometheus\"}[5m]) < 1"),
    ),
    (
        "PrometheusRuleFailures",
        Ok("sum(prometheus_rule_evaluation_failures_total{job=\"prometheus\"}[5m]) > 0"),
    ),
    (
        "PrometheusNoRuleEvaluations",
        Ok(
            "sum(prometheus_rule_evaluations_total{job=\"prometheus\"}[5m]) == 0 and count(prometheus_rule_evaluations_total{job=\"prometheus\"}[5m]) > 0",
        ),
    ),
    (
        "PrometheusRequestsSlow",
        Ok("quantile(0.9, prometheus_http_request_duration_seconds{job=\"prometheus\"}[5m]) by (job) > 1"),
    ),
    ("Watchdog", Err("`vector` has no counterpart")),
    (
        "cluster_quantile:apiserver_request_slo_duration_seconds:histogram_quantile",
        Err("its `labels` have no counterpart"),
    ),
    ("instance:node_cpu_utilisation:rate5m", Err("`without` has no counterpart")),
];

#[test]
fn rules_of_clusters_and_hosts_have_a_stated_outcome() {
    let converted = one(RULES);
    for (name, outcome) in OUTCOMES {
        let rule = converted.rules.iter().find(|rule| rule.origin.name == name);
        let left_out = converted.left_out.iter().find(|one| one.origin.name == name);
        match (outcome, rule, left_out) {
            (Ok(expr), Some(rule), None) => assert_eq!(rule.said.expr, expr, "{name}"),
            (Err(reason), None, Some(left_out)) => {
                assert!(left_out.text.contains(reason), "{name}: {}", left_out.text);
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    let all = converted.rules.len() + converted.left_out.len();
    assert_eq!(all, OUTCOMES.len(), "{:?}", reasons(&converted));
    assert_eq!(converted.records.len(), 1);
    assert!(notes(&converted).iter().any(|note| note.contains("`interval: 30s`")));
    assert_eq!(
        converted.summary(),
        "alerts: 18 converted (13 noted), 14 left out; records: 1 converted (1 noted), 2 left out"
    );
}
