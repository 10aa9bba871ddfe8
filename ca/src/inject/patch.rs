//! What became of an object, as a JSON patch (RFC 6902): what the API server applies, and what its audit log shows.

use serde::Serialize;

use super::tree::Tree;

/// One step.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Step {
    /// Puts a value there, also where one stands.
    Add {
        /// A JSON pointer.
        path: String,
        /// The value.
        value: Tree,
    },
    /// Puts another value there.
    Replace {
        /// A JSON pointer.
        path: String,
        /// The value.
        value: Tree,
    },
    /// Takes it away.
    Remove {
        /// A JSON pointer.
        path: String,
    },
}

/// The steps from one to the other; lists that differ are replaced as a whole.
#[must_use]
pub fn patch(from: &Tree, to: &Tree) -> Vec<Step> {
    let mut steps = Vec::new();
    compare(from, to, "", &mut steps);
    steps
}

fn compare(from: &Tree, to: &Tree, path: &str, steps: &mut Vec<Step>) {
    let (Tree::Map(old), Tree::Map(new)) = (from, to) else {
        if from != to {
            steps.push(Step::Replace { path: path.to_owned(), value: to.clone() });
        }
        return;
    };
    for (key, _) in old.iter().filter(|(key, _)| new.get(key).is_none()) {
        steps.push(Step::Remove { path: below(path, key) });
    }
    for (key, value) in new.iter() {
        match old.get(key) {
            Some(before) => compare(before, value, &below(path, key), steps),
            None => steps.push(Step::Add { path: below(path, key), value: value.clone() }),
        }
    }
}

fn below(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_names_what_changed_and_nothing_else() {
        let read = |text| serde_json::from_str::<Tree>(text).unwrap();
        let from = read(r#"{"a":{"x/y":1,"gone":2},"same":[1],"list":[1,2]}"#);
        let to = read(r#"{"a":{"x/y":3,"t~":4},"same":[1],"list":[1]}"#);

        let steps = serde_json::to_string(&patch(&from, &to)).unwrap();

        assert_eq!(
            steps,
            r#"[{"op":"remove","path":"/a/gone"},{"op":"replace","path":"/a/x~1y","value":3},{"op":"add","path":"/a/t~0","value":4},{"op":"replace","path":"/list","value":[1]}]"#
        );
        assert!(patch(&to, &to).is_empty());
    }
}
