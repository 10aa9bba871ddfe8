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
    let entries = |wide: &[Vec<Field<'_>>], narrow: &[Vec<Field<'_>>]| {
        let covered = |entry: &Vec<Field<'_>>| wide.iter().any(|wide| covers_entry(wide, entry));
        wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(covered))
    };
    let when = wide.when.iter().all(|wide| {
        narrow.when.iter().any(|narrow| {
            wide.key == narrow.key
                && covers_field((&wide.values, &wide.not_values), (&narrow.values, &narrow.not_values))
        })
    });
    entries(&callers(wide), &callers(narrow)) && entries(&operations(wide), &operations(narrow)) && when
}

fn callers(rule: &wire::Rule) -> Vec<Vec<Field<'_>>> {
    rule.from.iter().map(source).collect()
}

fn operations(rule: &wire::Rule) -> Vec<Vec<Field<'_>>> {
    rule.to.iter().map(operation).collect()
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

fn source(source: &wire::Source) -> Vec<Field<'_>> {
    vec![
        (&source.principals, &source.not_principals),
        (&source.request_principals, &source.not_request_principals),
        (&source.namespaces, &source.not_namespaces),
        (&source.service_accounts, &source.not_service_accounts),
        (&source.trust_domains, &source.not_trust_domains),
        (&source.ip_blocks, &source.not_ip_blocks),
        (&source.remote_ip_blocks, &source.not_remote_ip_blocks),
    ]
}

fn operation(operation: &wire::Operation) -> Vec<Field<'_>> {
    vec![
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
