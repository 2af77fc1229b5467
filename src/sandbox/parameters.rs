//! Parameters of a query string. Knows none of them.

/// Names and values in the order in which they were sent. An empty value counts as missing, as it
/// does for WeChat.
#[derive(Default)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Decodes `name=value&name=value`.
    pub(super) fn parse(query: &str) -> Parameters {
        Parameters(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// The first value of `name`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The first value of `name`, or what to say about its absence.
    pub(super) fn require(&self, name: &str) -> Result<&str, String> {
        self.get(name).ok_or_else(|| format!("parameter {name:?} is missing"))
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Refuses names that are not `known`: a misspelt one would silently do nothing.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), String> {
        match self.iter().find(|(name, _)| !known.contains(name)) {
            None => Ok(()),
            Some((name, _)) => Err(format!("no parameter {name:?}; there are {known:?}")),
        }
    }
}
