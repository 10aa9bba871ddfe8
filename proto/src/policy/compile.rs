//! From a policy as written (the wire's message, also made of YAML) to its compiled rules, and what is wrong with it.
//!
//! It always ends in something that can be enforced: what is wrong makes an ALLOW rule void, and a DENY rule deny
//! everything. Who loads a policy refuses it when there is any flaw; who receives one enforces the rest and reports.

use super::{
    clause::{Attribute, Clause, Effect, Values},
    flaw::{PolicyFlaw, Step},
    rule::{Compiled, Rule},
    value::{self, Context, Wrong},
};
use crate::wire;

/// Istio's bounds for rules, and for the entries of a rule.
const MAX_ENTRIES: usize = 512;
/// Istio's bound for `serviceAccounts`.
const MAX_ACCOUNTS: usize = 16;
/// No list of values needs more; each is matched for each request.
const MAX_VALUES: usize = 4096;

/// Compiles the rules of `policy`.
pub(super) fn compile(
    policy: &wire::Policy,
    effect: Effect,
    context: Context<'_>,
) -> (Compiled, Vec<PolicyFlaw>) {
    let mut compiler = Compiler { context, path: Vec::new(), flaws: Vec::new() };
    let key = format!("{}/{}", policy.namespace, policy.name);
    let mut rules = compiler.within(Step::Field("rules"), |compiler| {
        compiler.limit(policy.rules.len(), MAX_ENTRIES, "rules");
        let mut rules = Vec::new();
        for (index, rule) in policy.rules.iter().enumerate().take(MAX_ENTRIES) {
            let label = format!("{key} rule {}", index + 1);
            rules.push(compiler.within(Step::Item(index), |compiler| compiler.rule(rule, effect, &label)));
        }
        rules
    });
    if rules.is_empty() && effect == Effect::Deny {
        compiler.flaw(
            "a DENY policy without rules denies nothing",
            "add a rule; `{}` is one that always matches",
        );
    }
    let is_cut = rules.len() != policy.rules.len() || rules.is_empty();
    if let Some(flaw) = compiler.flaws.first().filter(|_| is_cut && effect == Effect::Deny) {
        rules.push(Rule::of_everything(&format!("{key} rule {}", rules.len() + 1), doubt(flaw, effect)));
    }
    (Compiled { key: key.into(), rules }, compiler.flaws)
}

fn doubt(flaw: &PolicyFlaw, effect: Effect) -> String {
    match effect {
        Effect::Allow => format!("it is void, since {flaw}"),
        Effect::Deny => format!("it denies everything, since {flaw}"),
    }
}

struct Compiler<'a> {
    context: Context<'a>,
    path: Vec<Step>,
    flaws: Vec<PolicyFlaw>,
}

impl Compiler<'_> {
    fn rule(&mut self, rule: &wire::Rule, effect: Effect, label: &str) -> Rule {
        let before = self.flaws.len();
        let from = self.entries("from", "source", &rule.from, Self::source);
        let to = self.entries("to", "operation", &rule.to, Self::operation);
        let when = self.within(Step::Field("when"), |compiler| {
            compiler.limit(rule.when.len(), MAX_ENTRIES, "conditions");
            let conditions = rule.when.iter().enumerate().take(MAX_ENTRIES);
            let clauses = conditions.filter_map(|(index, condition)| {
                compiler.within(Step::Item(index), |compiler| compiler.condition(condition))
            });
            clauses.collect()
        });
        let doubt = self.flaws.get(before).map(|flaw| doubt(flaw, effect));
        if let Some(doubt) = doubt.clone().filter(|_| effect == Effect::Deny) {
            return Rule::of_everything(label, doubt);
        }
        let mut compiled = Rule { label: label.into(), from, to, when, needs_http: false, doubt };
        let needs_http = compiled.attributes().any(Attribute::is_http);
        compiled.needs_http = needs_http;
        compiled
    }

    fn entries<T>(
        &mut self,
        list: &'static str,
        key: &'static str,
        entries: &[T],
        read: impl Fn(&mut Self, &T) -> Vec<Clause>,
    ) -> Vec<Vec<Clause>> {
        self.within(Step::Field(list), |compiler| {
            compiler.limit(entries.len(), MAX_ENTRIES, "entries");
            let mut all = Vec::new();
            for (index, entry) in entries.iter().enumerate().take(MAX_ENTRIES) {
                all.push(compiler.within(Step::Item(index), |compiler| {
                    compiler.within(Step::Field(key), |compiler| {
                        let before = compiler.flaws.len();
                        let clauses = read(compiler, entry);
                        if clauses.is_empty() && compiler.flaws.len() == before {
                            compiler.flaw("it names nothing", "remove the entry for any, or add a field");
                        }
                        clauses
                    })
                }));
            }
            all
        })
    }

    fn source(&mut self, source: &wire::Source) -> Vec<Clause> {
        let accounts = [&source.service_accounts, &source.not_service_accounts];
        let others = [&source.principals, &source.not_principals, &source.namespaces, &source.not_namespaces];
        if accounts.iter().any(|list| !list.is_empty()) && others.iter().any(|list| !list.is_empty()) {
            self.flaw(
                "serviceAccounts cannot stand beside principals or namespaces",
                "write them in another entry of from, or as one kind",
            );
        }
        if accounts.iter().any(|list| list.len() > MAX_ACCOUNTS) {
            self.flaw("more than 16 serviceAccounts", "split the entry");
        }
        [
            self.clause(
                Attribute::Principal,
                ("principals", &source.principals),
                ("notPrincipals", &source.not_principals),
            ),
            self.clause(
                Attribute::Namespace,
                ("namespaces", &source.namespaces),
                ("notNamespaces", &source.not_namespaces),
            ),
            self.clause(
                Attribute::ServiceAccount,
                ("serviceAccounts", &source.service_accounts),
                ("notServiceAccounts", &source.not_service_accounts),
            ),
            self.clause(
                Attribute::SourceIp,
                ("ipBlocks", &source.ip_blocks),
                ("notIpBlocks", &source.not_ip_blocks),
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn operation(&mut self, operation: &wire::Operation) -> Vec<Clause> {
        [
            self.clause(Attribute::Host, ("hosts", &operation.hosts), ("notHosts", &operation.not_hosts)),
            self.clause(
                Attribute::DestinationPort,
                ("ports", &operation.ports),
                ("notPorts", &operation.not_ports),
            ),
            self.clause(
                Attribute::Method,
                ("methods", &operation.methods),
                ("notMethods", &operation.not_methods),
            ),
            self.clause(Attribute::Path, ("paths", &operation.paths), ("notPaths", &operation.not_paths)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn condition(&mut self, condition: &wire::Condition) -> Option<Clause> {
        let attribute = match value::parse_key(&condition.key) {
            Ok(attribute) => attribute,
            Err(wrong) => {
                self.within(Step::Field("key"), |compiler| compiler.wrong(wrong));
                return None;
            }
        };
        if condition.values.is_empty() && condition.not_values.is_empty() {
            self.flaw("the condition has no values", "add values or notValues");
            return None;
        }
        self.clause(attribute, ("values", &condition.values), ("notValues", &condition.not_values))
    }

    // A field with a bad value is dropped whole: of a list of which one value is unknown, nothing is known.
    fn clause(
        &mut self,
        attribute: Attribute,
        (field, values): (&'static str, &[String]),
        (not_field, not_values): (&'static str, &[String]),
    ) -> Option<Clause> {
        if values.is_empty() && not_values.is_empty() {
            return None;
        }
        let before = self.flaws.len();
        let any_of = self.within(Step::Field(field), |compiler| compiler.values(&attribute, values));
        let none_of = self.within(Step::Field(not_field), |compiler| compiler.values(&attribute, not_values));
        (self.flaws.len() == before).then_some(Clause { attribute, any_of, none_of })
    }

    fn values(&mut self, attribute: &Attribute, texts: &[String]) -> Values {
        self.limit(texts.len(), MAX_VALUES, "values");
        let mut values = Values::default();
        for (index, text) in texts.iter().enumerate().take(MAX_VALUES) {
            match value::parse(attribute, text, self.context) {
                Ok(matchers) => values.matchers.extend(matchers),
                Err(wrong) => self.within(Step::Item(index), |compiler| compiler.wrong(wrong)),
            }
            values.words.push(text.clone());
        }
        values
    }

    fn within<T>(&mut self, step: Step, read: impl FnOnce(&mut Self) -> T) -> T {
        self.path.push(step);
        let read = read(self);
        self.path.pop();
        read
    }

    fn limit(&mut self, count: usize, most: usize, what: &str) {
        if count > most {
            self.flaw(
                format!("{count} {what} are too many"),
                format!("{most} are the most; split the policy"),
            );
        }
    }

    fn wrong(&mut self, wrong: Wrong) {
        let Wrong { what, mend, unsupported } = wrong;
        self.flaws.push(PolicyFlaw { path: self.path.clone(), what, mend: mend.to_owned(), unsupported });
    }

    fn flaw(&mut self, what: impl Into<String>, mend: impl Into<String>) {
        let (what, mend) = (what.into(), mend.into());
        self.flaws.push(PolicyFlaw { path: self.path.clone(), what, mend, unsupported: false });
    }
}
