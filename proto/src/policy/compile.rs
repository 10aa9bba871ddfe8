//! From a policy as written (the wire's message, also made of YAML) to its compiled rules, and what is wrong with it.
//!
//! It always ends in something that can be enforced: what is wrong makes an ALLOW rule void; of any other rule the field
//! is dropped, so that it holds for more. Who loads a policy refuses it when there is any flaw; who receives one enforces
//! the rest and reports. The fields of an entry are read in `entry`.

use std::sync::Arc;

use super::{
    attribute::Attribute,
    clause::Clause,
    flaw::{PolicyFlaw, Step},
    matcher::{Effect, Values},
    rule::{Compiled, Rule, Standing},
    unread::Unread,
    value::{self, Context},
    wrong::{Wrong, bounded},
};
use crate::wire;

/// Istio's bounds for rules, and for the entries of a rule.
const MAX_ENTRIES: usize = 512;
/// No list of values needs more; each is matched for each request.
const MAX_VALUES: usize = 4096;

/// A policy that can be enforced, and what of it could not be taken as written.
#[derive(Debug)]
pub(super) struct Compilation {
    pub(super) compiled: Compiled,
    pub(super) problems: Vec<Problem>,
}

/// Something that could not be taken as written.
#[derive(Debug)]
pub(super) enum Problem {
    /// It is wrong: who loads the policy refuses it.
    Wrong(PolicyFlaw),
    /// It is valid, but names something that no request has here.
    Unseen(PolicyFlaw),
}

impl Problem {
    pub(super) fn flaw(&self) -> &PolicyFlaw {
        match self {
            Self::Wrong(flaw) | Self::Unseen(flaw) => flaw,
        }
    }
}

/// In which direction doubt goes.
pub(super) fn effect(action: wire::Action) -> Effect {
    match action {
        wire::Action::Allow => Effect::Allow,
        wire::Action::Deny | wire::Action::Custom | wire::Action::Audit => Effect::Deny,
    }
}

/// Compiles the rules of `policy`.
pub(super) fn compile(policy: &wire::Policy, action: wire::Action, context: Context<'_>) -> Compilation {
    let key: Arc<str> = format!("{}/{}", policy.namespace, policy.name).into();
    let mut compiler = Compiler::new(action, context);
    compiler.whole(policy);
    let of_whole = compiler.problems.len();
    let mut rules = compiler.within(Step::Field("rules"), |compiler| {
        compiler.limit(policy.rules.len(), MAX_ENTRIES, "rules");
        let mut rules = Vec::new();
        for (index, rule) in policy.rules.iter().enumerate().take(MAX_ENTRIES) {
            let empty = Rule::new(&key, index + 1);
            rules.push(compiler.within(Step::Item(index), |compiler| compiler.rule(rule, empty)));
        }
        rules
    });
    if rules.is_empty() && matches!(action, wire::Action::Deny | wire::Action::Custom) {
        let what = format!("a {} policy without rules never matches", action.as_str_name());
        compiler.flaw(what, "add a rule; `{}` is one that always matches");
    }
    if let Some(problem) =
        compiler.problems.first().filter(|_| of_whole > 0 && effect(action) == Effect::Allow)
    {
        let why = format!("it is void, since {}", problem.flaw());
        rules.iter_mut().for_each(|rule| rule.standing = Standing::Void(why.clone()));
    }
    // Rules that are not read must not be lost where they could have denied something.
    let is_cut = rules.len() != policy.rules.len() || rules.is_empty();
    if let Some(problem) = compiler.problems.last().filter(|_| is_cut && effect(action) == Effect::Deny) {
        rules.push(Rule::of_everything(&key, rules.len() + 1, &problem.flaw().to_string()));
    }
    Compilation { compiled: Compiled { key, rules }, problems: compiler.problems }
}

/// The state of one compilation: where it is, and what was found so far.
pub(super) struct Compiler<'a> {
    pub(super) action: wire::Action,
    context: Context<'a>,
    path: Vec<Step>,
    problems: Vec<Problem>,
}

impl<'a> Compiler<'a> {
    fn new(action: wire::Action, context: Context<'a>) -> Self {
        Self { action, context, path: Vec::new(), problems: Vec::new() }
    }

    // What concerns the policy as a whole.
    fn whole(&mut self, policy: &wire::Policy) {
        self.unreadable(&policy.unreadable);
        let asks = self.action == wire::Action::Custom;
        if asks && policy.provider.is_empty() {
            self.flaw("a CUSTOM policy without provider.name asks nobody", "name an extension provider");
        }
        if !asks && !policy.provider.is_empty() {
            self.within(Step::Field("provider"), |compiler| {
                compiler.flaw("only a CUSTOM policy has a provider", "remove it, or write action: CUSTOM");
            });
        }
    }

    fn rule(&mut self, rule: &wire::Rule, empty: Rule) -> Rule {
        let before = self.problems.len();
        let unread = Unread(&rule.unreadable);
        self.unreadable(&rule.unreadable);
        let (_, from) = unread.of("from", &rule.from);
        let (_, to) = unread.of("to", &rule.to);
        let from = self.entries("from", "source", from, Self::source);
        let to = self.entries("to", "operation", to, Self::operation);
        let when = self.within(Step::Field("when"), |compiler| {
            compiler.limit(rule.when.len(), MAX_ENTRIES, "conditions");
            let conditions = rule.when.iter().enumerate().take(MAX_ENTRIES);
            let clauses = conditions.filter_map(|(index, condition)| {
                compiler.within(Step::Item(index), |compiler| compiler.condition(condition))
            });
            clauses.collect()
        });
        let standing = match (self.problems.get(before), effect(self.action)) {
            (None, _) => Standing::Sound,
            (Some(problem), Effect::Allow) => Standing::Void(format!("it is void, since {}", problem.flaw())),
            (Some(problem), Effect::Deny) => {
                Standing::Widened(format!("a field of it is dropped, since {}", problem.flaw()))
            }
        };
        let mut compiled = Rule { from, to, when, standing, ..empty };
        let needs_http = compiled.attributes().any(Attribute::is_http);
        compiled.needs_http = needs_http;
        compiled
    }

    // A list that was cut holds for any: of the entries that are not read nothing is known.
    fn entries<T>(
        &mut self,
        list: &'static str,
        key: &'static str,
        entries: &[T],
        read: impl Fn(&mut Self, &T) -> Vec<Clause>,
    ) -> Vec<Vec<Clause>> {
        self.within(Step::Field(list), |compiler| {
            if !compiler.limit(entries.len(), MAX_ENTRIES, "entries") {
                return Vec::new();
            }
            let mut all = Vec::new();
            for (index, entry) in entries.iter().enumerate() {
                all.push(compiler.within(Step::Item(index), |compiler| {
                    compiler.within(Step::Field(key), |compiler| {
                        let before = compiler.problems.len();
                        let clauses = read(compiler, entry);
                        if clauses.is_empty() && compiler.problems.len() == before {
                            compiler.flaw("it names nothing", "remove the entry for any, or add a field");
                        }
                        clauses
                    })
                }));
            }
            all
        })
    }

    /// A field with its negative. Of a positive list with a bad value nothing is known, it is dropped whole; of a negative
    /// one only the bad value is.
    pub(super) fn clause(
        &mut self,
        attribute: Attribute,
        (field, values): (&'static str, &[String]),
        (not_field, not_values): (&'static str, &[String]),
    ) -> Option<Clause> {
        if self.action == wire::Action::Custom && attribute.is_identity() {
            for (field, values) in [(field, values), (not_field, not_values)] {
                if !values.is_empty() {
                    self.within(Step::Field(field), Self::forbidden_identity);
                }
            }
            return None;
        }
        let before = self.problems.len();
        let mut any_of = self.within(Step::Field(field), |compiler| compiler.values(&attribute, values));
        if self.problems.len() != before {
            any_of = Values::default();
        }
        let none_of = self.within(Step::Field(not_field), |compiler| compiler.values(&attribute, not_values));
        let is_empty = any_of.is_empty() && none_of.is_empty();
        (!is_empty).then_some(Clause { attribute, any_of, none_of })
    }

    fn forbidden_identity(&mut self) {
        self.flaw(
            "a CUSTOM policy cannot look at identities",
            "leave that to the authorizer, or write a DENY policy",
        );
    }

    fn values(&mut self, attribute: &Attribute, texts: &[String]) -> Values {
        self.limit(texts.len(), MAX_VALUES, "values");
        let mut values = Values::default();
        for (index, text) in texts.iter().enumerate().take(MAX_VALUES) {
            match value::parse(attribute, text, self.context) {
                Ok(matchers) => {
                    values.matchers.extend(matchers);
                    values.words.push(text.clone());
                }
                Err(wrong) => self.within(Step::Item(index), |compiler| compiler.wrong(wrong)),
            }
        }
        values
    }

    /// Reads what lies behind `step`.
    pub(super) fn within<T>(&mut self, step: Step, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let read = read(self);
        self.path.pop();
        read
    }

    /// Is it no more than can be?
    pub(super) fn limit(&mut self, count: usize, most: usize, what: &str) -> bool {
        if count > most {
            self.flaw(
                format!("{count} {what} are too many"),
                format!("{most} are the most; split the policy"),
            );
        }
        count <= most
    }

    /// Notes what could not be read of the part at hand.
    pub(super) fn unreadable(&mut self, parts: &[String]) {
        for part in parts {
            self.flaw(
                format!("{} cannot be read", bounded(part)),
                "remove what this version does not know, and mend the rest",
            );
        }
    }

    /// Notes that the value or key at hand is wrong.
    pub(super) fn wrong(&mut self, wrong: Wrong) {
        self.flaw(wrong.what, wrong.mend);
    }

    /// Notes that the part at hand is wrong.
    pub(super) fn flaw(&mut self, what: impl Into<String>, mend: impl Into<String>) {
        let flaw = self.here(what.into(), mend.into());
        self.problems.push(Problem::Wrong(flaw));
    }

    /// Notes that the part at hand is valid, but that no request has what it looks at.
    pub(super) fn unseen(&mut self, what: &str, mend: &str) {
        let flaw = self.here(what.to_owned(), mend.to_owned());
        self.problems.push(Problem::Unseen(PolicyFlaw { unsupported: true, ..flaw }));
    }

    fn here(&self, what: String, mend: String) -> PolicyFlaw {
        PolicyFlaw { path: self.path.clone(), what, mend, unsupported: false }
    }
}
