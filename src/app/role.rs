//! The roles of one process of a deployment.

use super::BadConfig;

/// The parts of the work that a process does; `all` means every part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Owns partitions, or is the standby for them.
    pub ingest: bool,
    /// Serves the API, the web page and the micro service. Without it the process serves only health and
    /// metrics, and with `notify` also its receivers.
    pub api: bool,
    /// Delivers alerts to their receivers.
    pub notify: bool,
}

impl std::fmt::Display for Roles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = [("ingest", self.ingest), ("api", self.api), ("notify", self.notify)];
        let names: Vec<&str> = all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect();
        f.write_str(&names.join(","))
    }
}

impl Roles {
    pub const ALL: Roles = Roles { ingest: true, api: true, notify: true };

    /// Parses `all`, or some of `ingest`, `api` and `notify`, separated by commas.
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
