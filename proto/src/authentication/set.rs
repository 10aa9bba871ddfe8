//! All token rules that apply to a workload, as one list.

use http::HeaderName;

use super::rule::Rule;
use crate::{features, wire};

/// All token rules of one workload, compiled. An empty one looks at no token.
#[derive(Debug, Clone, Default)]
pub struct Authentication {
    /// In the order of the messages, and of the rules in each.
    pub(super) rules: Vec<Rule>,
    /// The headers that rules set, and nobody else.
    pub(super) owned: Vec<HeaderName>,
    complaints: Vec<String>,
}

impl Authentication {
    /// Compiles what the control plane sent. What cannot be read refuses every token, and is complained about.
    #[must_use]
    pub fn from_wire(messages: &[wire::RequestAuthentication]) -> Self {
        let mut compiled = Self::default();
        for message in messages {
            compiled.add(message);
        }
        compiled
    }

    /// What could not be applied as written, one line each, for the operator.
    #[must_use]
    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    fn add(&mut self, message: &wire::RequestAuthentication) {
        let key = format!("request authentication {}/{}", message.namespace, message.name);
        let first = self.rules.len();
        for (index, rule) in message.rules.iter().enumerate() {
            let complaints = &mut self.complaints;
            let rule = Rule::compile(rule, |what| {
                complaints.push(format!("{key} rule {}: {what}", index.saturating_add(1)));
            });
            self.rules.push(rule);
        }
        let unknown = message.requires.iter().filter(|feature| !features::ALL.contains(&feature.as_str()));
        let unknown = unknown.map(|feature| format!("this sidecar does not know its feature {feature:?}"));
        let unreadable: Vec<String> = message.unreadable.iter().cloned().chain(unknown).collect();
        if let Some(what) = unreadable.first() {
            self.complaints.extend(unreadable.iter().map(|what| format!("{key}: {what}")));
            // A rule that nobody could read may have looked where none of the others does.
            self.rules.push(Rule::compile(&wire::JwtRule::default(), drop));
            let void = format!("{key} could not be read: {what}");
            self.rules.iter_mut().skip(first).for_each(|rule| rule.accept_nothing(&void));
        }
        for name in self.rules.iter().skip(first).flat_map(|rule| rule.output.names()) {
            if !self.owned.contains(name) {
                self.owned.push(name.clone());
            }
        }
    }
}
