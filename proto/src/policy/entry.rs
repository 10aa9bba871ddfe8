//! The fields of one entry of `from`, `to` or `when`.
//!
//! Knows not how a field's values are read (`value`), nor what becomes of a rule with a flaw (`compile`).

use super::{
    attribute::{Attribute, Key, parse_key},
    clause::Clause,
    compile::Compiler,
    flaw::Step,
    unread::Unread,
};
use crate::wire;

/// Istio's bound for `serviceAccounts`.
const MAX_ACCOUNTS: usize = 16;

impl Compiler<'_> {
    /// `from[].source`.
    pub(super) fn source(&mut self, source: &wire::Source) -> Vec<Clause> {
        let unread = Unread(&source.unreadable);
        self.unreadable(&source.unreadable);
        [
            self.clause(
                Attribute::Principal,
                unread.of("principals", &source.principals),
                ("notPrincipals", &source.not_principals),
            ),
            self.clause(
                Attribute::Namespace,
                unread.of("namespaces", &source.namespaces),
                ("notNamespaces", &source.not_namespaces),
            ),
            self.accounts(source, unread),
            self.clause(
                Attribute::TrustDomain,
                unread.of("trustDomains", &source.trust_domains),
                ("notTrustDomains", &source.not_trust_domains),
            ),
            self.clause(
                Attribute::RequestPrincipal,
                unread.of("requestPrincipals", &source.request_principals),
                ("notRequestPrincipals", &source.not_request_principals),
            ),
            self.clause(
                Attribute::SourceIp,
                unread.of("ipBlocks", &source.ip_blocks),
                ("notIpBlocks", &source.not_ip_blocks),
            ),
            self.clause(
                Attribute::RemoteIp,
                unread.of("remoteIpBlocks", &source.remote_ip_blocks),
                ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// `to[].operation`.
    pub(super) fn operation(&mut self, operation: &wire::Operation) -> Vec<Clause> {
        let unread = Unread(&operation.unreadable);
        self.unreadable(&operation.unreadable);
        [
            self.clause(
                Attribute::Host,
                unread.of("hosts", &operation.hosts),
                ("notHosts", &operation.not_hosts),
            ),
            self.clause(
                Attribute::DestinationPort,
                unread.of("ports", &operation.ports),
                ("notPorts", &operation.not_ports),
            ),
            self.clause(
                Attribute::Method,
                unread.of("methods", &operation.methods),
                ("notMethods", &operation.not_methods),
            ),
            self.clause(
                Attribute::Path,
                unread.of("paths", &operation.paths),
                ("notPaths", &operation.not_paths),
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// `when[]`.
    pub(super) fn condition(&mut self, condition: &wire::Condition) -> Option<Clause> {
        let unread = Unread(&condition.unreadable);
        self.unreadable(&condition.unreadable);
        if unread.names("key") {
            return None;
        }
        let key = match parse_key(&condition.key) {
            Ok(key) => key,
            Err(wrong) => {
                self.within(Step::Field("key"), |compiler| compiler.wrong(wrong));
                return None;
            }
        };
        if condition.values.is_empty() && condition.not_values.is_empty() {
            if condition.unreadable.is_empty() {
                self.flaw("the condition has no values", "add values or notValues");
            }
            return None;
        }
        let Key::Known(attribute) = key else {
            self.within(Step::Field("key"), |compiler| {
                compiler.unseen(
                    "it names metadata of Envoy's filters, of which there are none here, so that it never matches",
                    "remove the condition, or the rule",
                );
            });
            return None;
        };
        let values = unread.of("values", &condition.values);
        self.clause(attribute, values, ("notValues", &condition.not_values))
    }

    fn accounts(&mut self, source: &wire::Source, unread: Unread<'_>) -> Option<Clause> {
        let accounts = [&source.service_accounts, &source.not_service_accounts];
        let others = [&source.principals, &source.not_principals, &source.namespaces, &source.not_namespaces];
        let beside =
            accounts.iter().any(|list| !list.is_empty()) && others.iter().any(|list| !list.is_empty());
        if beside {
            self.flaw(
                "serviceAccounts cannot stand beside principals or namespaces",
                "write them in another entry of from, or as one kind",
            );
        }
        let few = accounts.iter().all(|list| self.limit(list.len(), MAX_ACCOUNTS, "service accounts"));
        let (any_of, none_of) =
            (unread.of("serviceAccounts", &source.service_accounts), &source.not_service_accounts);
        let clause = self.clause(Attribute::ServiceAccount, any_of, ("notServiceAccounts", none_of));
        clause.filter(|_| few && !beside)
    }
}
