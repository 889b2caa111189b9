//! Server addresses in a form that is safe to show.

/// Returns a URL, or a comma-separated list of URLs, without user, password, token, query and fragment.
pub fn without_password(url: &str) -> String {
    addresses(url).into_iter().map(one_without).collect::<Vec<_>>().join(",")
}

/// Splits a list of addresses at its commas. A comma may also be part of a password. Read from the right, the pieces
/// between an `@` and the next scheme therefore stay together.
fn addresses(list: &str) -> Vec<&str> {
    let (mut all, mut end, mut piece_end, mut has_at) = (Vec::new(), list.len(), list.len(), false);
    for start in list.rmatch_indices(',').map(|(comma, _)| comma + 1).chain([0]) {
        let piece = &list[start..piece_end];
        has_at |= piece.contains('@');
        piece_end = start.saturating_sub(1);
        if start == 0 || !has_at || scheme(piece).is_some() {
            all.push(&list[start..end]);
            (end, has_at) = (piece_end, false);
        }
    }
    all.reverse();
    all
}

/// Splits a URL into its scheme and the rest. `user:a://b@host` has no scheme, because `://` may be part of a
/// password.
fn scheme(url: &str) -> Option<(&str, &str)> {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    url.split_once("://").filter(|(scheme, _)| !scheme.is_empty() && scheme.chars().all(is_letter))
}

/// Removes secrets from one address. Everything before the last `@` may be a secret, even if the rest of the
/// address is malformed: a garbled address in a message is better than a leaked password.
fn one_without(url: &str) -> String {
    let (scheme, rest) = match scheme(url) {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let plain = match rest.rsplit_once('@') {
        // The `?` may belong to the password, or the `@` to the query, so both sides may be secret.
        Some((before, _)) if before.contains('?') => "…",
        Some((_, host)) => host,
        None => rest,
    };
    format!("{scheme}{}", plain.split(['?', '#']).next().unwrap_or(""))
}

/// Returns the decoded user and password of a URL, if it has any. A user without a password is a token.
pub fn credentials(url: &str) -> Option<(String, Option<String>)> {
    let rest = scheme(url).map_or(url, |(_, rest)| rest);
    let (stated, _) = rest.rsplit_once('@')?;
    Some(match stated.split_once(':') {
        Some((user, password)) => (decoded(user), Some(decoded(password))),
        None => (decoded(stated), None),
    })
}

/// Decodes percent-encoding, which a URL needs for characters such as `@` (`%40`).
fn decoded(text: &str) -> String {
    let (mut out, bytes, mut at) = (Vec::new(), text.as_bytes(), 0);
    while at < bytes.len() {
        let is_hex = |hex: &&str| bytes[at] == b'%' && hex.bytes().all(|digit| digit.is_ascii_hexdigit());
        let hex = text.get(at + 1..at + 3).filter(is_hex);
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_nowhere_in_what_is_shown() {
        for (url, shown) in [
            ("nats://ann:s3cret@host:4222", "nats://host:4222"),
            ("redis://:p%40ss/word@host:1/0", "redis://host:1/0"),
            ("tls://token@h,nats://u:p@i:2", "tls://h,nats://i:2"),
            ("u:p@h:4222", "h:4222"),
            ("127.0.0.1:4222", "127.0.0.1:4222"),
            ("redis://:secret@host:6379/0?pass=secret", "redis://host:6379/0"),
            ("redis://host:6379/0?pass=sec@ret", "redis://…"),
            ("nats://ann:se@cr/et@host:4222", "nats://host:4222"),
            ("nats://ann:se?cret@host:4222", "nats://…"),
            ("nats://ann:se,cr,et@host:4222", "nats://host:4222"),
            ("nats://h,nats://ann:se,c@ret@i", "nats://h,nats://i"),
            ("h:1,i:2", "h:1,i:2"),
            ("ann:s://ecret@host", "host"),
        ] {
            assert_eq!(without_password(url), shown, "{url}");
        }
        let both = credentials("nats://ann:p%40ss@host:4222");
        assert_eq!(both, Some(("ann".into(), Some("p@ss".into()))));
        assert_eq!(credentials("nats://t0ken@host"), Some(("t0ken".into(), None)));
        assert_eq!(credentials("nats://a%+1%é%4@host"), Some(("a%+1%é%4".into(), None)), "no digits");
        assert_eq!(credentials("nats://host"), None);
    }
}
