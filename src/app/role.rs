//! What one process of a deployment does.

use super::BadConfig;

/// Parts of the work; `all` is everything there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Owns partitions, or stands by for them.
    pub ingest: bool,
    /// Answers the API, the page, and the micro service; without it only health and metrics.
    pub api: bool,
    /// Delivers alerts to their receivers.
    pub notify: bool,
}

impl Roles {
    pub const ALL: Roles = Roles { ingest: true, api: true, notify: true };

    /// `all`, or some of `ingest`, `api` and `notify`, with commas.
    pub fn parse(text: &str) -> Result<Roles, BadConfig> {
        let mut roles = Roles { ingest: false, api: false, notify: false };
        for word in text.split(',').map(str::trim) {
            match word {
                "all" => roles = Roles::ALL,
                "ingest" => roles.ingest = true,
                "api" => roles.api = true,
                "notify" => roles.notify = true,
                other => {
                    let hint = "take all, or some of ingest, api and notify with commas";
                    return Err(BadConfig(format!("role `{other}` is not known; {hint}")));
                }
            }
        }
        Ok(roles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_words_with_commas() {
        let parse = |text| Roles::parse(text).map_err(|error| error.to_string());
        assert_eq!(parse("all"), Ok(Roles::ALL));
        assert_eq!(parse("ingest, api,notify"), Ok(Roles::ALL));
        assert_eq!(parse("api"), Ok(Roles { ingest: false, api: true, notify: false }));
        assert_eq!(parse("notify"), Ok(Roles { ingest: false, api: false, notify: true }));
        assert!(parse("ingset").is_err_and(|error| error.contains("not known")));
    }
}
