//! Addresses of servers as people may read them.

/// The address without user, password, token and query, for messages.
///
/// All that stands before the last `@` may be a secret, also where the rest of the address is wrong:
/// better a strange address in a message than a password.
pub fn without_password(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let plain = match rest.rsplit_once('@') {
        // A question mark of the password, or an `@` of the query: both sides may be secret.
        Some((before, _)) if before.contains('?') => "…",
        Some((_, host)) => host,
        None => rest,
    };
    format!("{scheme}{}", plain.split(['?', '#']).next().unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_left() {
        for (url, shown) in [
            ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
            ("nats://ann:secret@host:4222", "nats://host:4222"),
            ("nats://token@host", "nats://host"),
            ("redis://:secret@host:6379/0?pass=secret", "redis://host:6379/0"),
            ("redis://host:6379/0?pass=sec@ret", "redis://…"),
            ("ann:secret@host:4222", "host:4222"),
            ("nats://ann:se@cr/et@host:4222", "nats://host:4222"),
            ("nats://ann:se?cret@host:4222", "nats://…"),
            ("nats://a:secret@h1,nats://b:secret@h2", "nats://h2"),
        ] {
            assert_eq!(without_password(url), shown, "{url}");
        }
    }
}
