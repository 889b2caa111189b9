//! Webhook targets that misbehave, and the errors reported for them.

use super::service::binary;
use super::sink::{Mood, Reply, Sink};
use std::time::{Duration, Instant};

/// Tries a webhook. Returns whether it succeeded, and the output.
fn test(url: &str, rest: &str) -> (bool, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("streamgauge.yaml");
    let text = format!(
        "receivers: [{{ name: hook, webhook: {{ url: 'env:HOOK_URL', timeout: 500ms{rest} }} }}]
route: {{ receiver: hook }}\n"
    );
    std::fs::write(&config, text).expect("writable");
    let mut command = binary();
    command.args(["notify", "test", "hook", "--by", "ann", "--config"]).arg(config);
    let output = command.env("HOOK_URL", url).output().expect("it runs");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Goal: no target can delay the service beyond its timeout, redirect it, or bring its URL, which may be a
/// secret, into a message. Method: one kind of misbehaviour after the other.
#[test]
fn no_target_holds_us_up_or_leads_us_elsewhere() {
    let moods: [(Mood, &str); 8] = [
        (|_| Reply::Hang, "no answer in time"),
        (|_| Reply::Endless, "it does not speak HTTP as expected"),
        (|_| Reply::Reset, "the connection failed"),
        (|_| Reply::Redirect, "redirects are not followed"),
        (|_| Reply::Busy, "429"),
        (|_| Reply::Status(500), "500"),
        (|_| Reply::Status(404), "404"),
        (|_| Reply::Status(410), "410"),
    ];
    for (mood, why) in moods {
        let (sink, begun) = (Sink::start(mood), Instant::now());
        let (is_fine, said) = test(&sink.url, ", allow: [127.0.0.1]");
        assert!(!is_fine && said.contains(why), "{why}: {said}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{why}: {:?}", begun.elapsed());
        assert!(!said.contains(&sink.url), "{said}");
        assert_eq!(sink.asked(), 1, "{why}");
    }
    // The status decides, so the body is not waited for beyond the timeout.
    let slow = Sink::start(|_| Reply::Slow);
    assert!(test(&slow.url, ", allow: [127.0.0.1]").0);
    let plain = Sink::start(|_| Reply::Status(200));
    let (is_fine, said) = test(&plain.secure_url(), ", allow: [127.0.0.1]");
    assert!(!is_fine && said.contains("connection"), "no TLS there: {said}");
    let (is_fine, said) = test(&plain.secure_url(), "");
    assert!(!is_fine && said.contains("127.0.0.1 is not public"), "{said}");
    assert_eq!(plain.asked(), 0);
}
