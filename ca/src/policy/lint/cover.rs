//! Does one rule hold wherever another one does? Told by what is written; where that does not show it, the answer is no.

use douane_proto::{policy::Scope, wire};

use super::wildcard::Wildcard;

/// A rule, and whom its policy selects.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule<'a> {
    pub(super) scope: &'a Scope,
    pub(super) rule: &'a wire::Rule,
}

/// A field: its values and what they must not be.
type Field<'a> = (&'a [String], &'a [String]);

/// Does `wide` hold for everything that `narrow` holds for?
pub(super) fn covers(wide: &Rule<'_>, narrow: &Rule<'_>, root: &str) -> bool {
    let (outer, inner) = (wide.scope, narrow.scope);
    let reaches = outer.namespace == inner.namespace || outer.namespace == root;
    let selects = outer.selector.iter().all(|(key, value)| inner.selector.get(key) == Some(value));
    reaches && selects && covers_rule(wide.rule, narrow.rule)
}

fn covers_rule(wide: &wire::Rule, narrow: &wire::Rule) -> bool {
    let callers = wide.from.is_empty()
        || (!narrow.from.is_empty()
            && narrow.from.iter().all(|narrow| wide.from.iter().any(|wide| covers_source(wide, narrow))));
    let operations = wide.to.is_empty()
        || (!narrow.to.is_empty()
            && narrow
                .to
                .iter()
                .all(|narrow| wide.to.iter().any(|wide| covers_entry(&operation(wide), &operation(narrow)))));
    let when = wide.when.iter().all(|wide| {
        narrow.when.iter().any(|narrow| {
            wide.key == narrow.key
                && covers_field((&wide.values, &wide.not_values), (&narrow.values, &narrow.not_values))
        })
    });
    callers && operations && when
}

fn covers_source(wide: &wire::Source, narrow: &wire::Source) -> bool {
    covers_namespaces(wide, narrow) && covers_entry(&source(wide), &source(narrow))
}

// A principal tells its namespace.
fn covers_namespaces(wide: &wire::Source, narrow: &wire::Source) -> bool {
    let (wide, not_wide) = (&wide.namespaces, &wide.not_namespaces);
    let is_within = |principal: &String| match principal.split('/').collect::<Vec<_>>().as_slice() {
        [_, "ns", namespace, "sa", _] if !principal.contains('*') => wide.iter().any(|own| own == namespace),
        _ => false,
    };
    let by_principal = !narrow.principals.is_empty() && narrow.principals.iter().all(is_within);
    (by_principal && not_wide.is_empty())
        || covers_field((wide, not_wide), (&narrow.namespaces, &narrow.not_namespaces))
}

fn covers_entry(wide: &[Field<'_>], narrow: &[Field<'_>]) -> bool {
    wide.iter().zip(narrow).all(|(wide, narrow)| covers_field(*wide, *narrow))
}

fn covers_field((wide, not_wide): Field<'_>, (narrow, not_narrow): Field<'_>) -> bool {
    let covered = |list: &[String], value: &String| {
        list.iter().any(|own| own == value || (is_simple(own) && is_simple(value) && within(own, value)))
    };
    let positive = wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(|value| covered(wide, value)));
    let negative = not_wide.iter().all(|value| covered(not_narrow, value));
    positive && negative
}

fn within(wide: &str, narrow: &str) -> bool {
    Wildcard::read(wide).covers(Wildcard::read(narrow))
}

// Templates and networks have rules of their own.
fn is_simple(value: &str) -> bool {
    !value.contains('{')
}

// All but the namespaces.
fn source(source: &wire::Source) -> [Field<'_>; 6] {
    [
        (&source.principals, &source.not_principals),
        (&source.request_principals, &source.not_request_principals),
        (&source.service_accounts, &source.not_service_accounts),
        (&source.trust_domains, &source.not_trust_domains),
        (&source.ip_blocks, &source.not_ip_blocks),
        (&source.remote_ip_blocks, &source.not_remote_ip_blocks),
    ]
}

fn operation(operation: &wire::Operation) -> [Field<'_>; 4] {
    [
        (&operation.hosts, &operation.not_hosts),
        (&operation.ports, &operation.not_ports),
        (&operation.methods, &operation.not_methods),
        (&operation.paths, &operation.not_paths),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(principals: &[&str], paths: &[&str]) -> wire::Rule {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let source = wire::Source { principals: owned(principals), ..Default::default() };
        let operation = wire::Operation { paths: owned(paths), ..Default::default() };
        wire::Rule {
            from: if principals.is_empty() { vec![] } else { vec![source] },
            to: if paths.is_empty() { vec![] } else { vec![operation] },
            ..Default::default()
        }
    }

    #[test]
    fn a_wider_value_or_no_value_at_all_covers() {
        assert!(covers_rule(&rule(&[], &["/a/*"]), &rule(&["x"], &["/a/b", "/a/c*"])));
        assert!(covers_rule(&rule(&[], &[]), &rule(&["x"], &["/a"])));
        assert!(covers_rule(&rule(&["*"], &[]), &rule(&["x"], &[])));
    }

    #[test]
    fn a_namespace_covers_its_principals() {
        let mut wide = rule(&[], &[]);
        wide.from = vec![wire::Source { namespaces: vec!["shop".to_owned()], ..Default::default() }];
        assert!(covers_rule(&wide, &rule(&["cluster.local/ns/shop/sa/web"], &["/a"])));
        assert!(!covers_rule(
            &wide,
            &rule(&["cluster.local/ns/shop/sa/web", "cluster.local/ns/x/sa/y"], &[])
        ));
        assert!(!covers_rule(&wide, &rule(&["cluster.local/ns/sho*"], &[])));
        wide.from[0].not_namespaces = vec!["x".to_owned()];
        assert!(!covers_rule(&wide, &rule(&["cluster.local/ns/shop/sa/web"], &[])), "not looked into");
    }

    #[test]
    fn what_asks_for_more_does_not() {
        assert!(!covers_rule(&rule(&["x"], &[]), &rule(&[], &["/a"])));
        assert!(!covers_rule(&rule(&[], &["/a/b"]), &rule(&[], &["/a/*"])));
        assert!(
            !covers_rule(&rule(&[], &["/a/*"]), &rule(&[], &["/a/{*}"])),
            "a template is not looked into"
        );
        let mut exception = rule(&["x"], &[]);
        exception.from[0].not_namespaces = vec!["n".to_owned()];
        assert!(!covers_rule(&exception, &rule(&["x"], &[])));
        assert!(covers_rule(&rule(&["x"], &[]), &exception));
    }
}
