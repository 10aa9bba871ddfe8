//! What came as JSON, as a tree that a cursor reads: an object of an API has no lines, and says so by line 0.
//!
//! Knows no kinds. Bounded as a file is.

use serde_json::Value as Json;

use super::tree::{Entry, MAX_DEPTH, Node, Value, Work};

impl Node {
    /// The tree of `json`; `None` when it is nested deeper, or is more, than one file may be.
    #[must_use]
    pub fn from_json(json: &Json) -> Option<Self> {
        grow(json, &mut Work::new(), MAX_DEPTH)
    }
}

fn grow(json: &Json, work: &mut Work, depth: usize) -> Option<Node> {
    work.take_one()?;
    let deeper = depth.checked_sub(1)?;
    let value = match json {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Value::Integer(whole),
            None => Value::Float(number.as_f64()?),
        },
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(items) => {
            Value::List(items.iter().map(|item| grow(item, work, deeper)).collect::<Option<_>>()?)
        }
        Json::Object(entries) => {
            let entry = |(key, value): (&String, &Json)| {
                Some(Entry { key: key.clone(), line: 0, node: grow(value, work, deeper)? })
            };
            Value::Map(entries.iter().map(entry).collect::<Option<_>>()?)
        }
    };
    Some(Node { line: 0, value })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_of_an_api_reads_as_a_document_does_and_has_no_lines() {
        let node =
            Node::from_json(&json!({"spec": {"replicas": 2, "names": ["a", null, true, 1.5]}})).unwrap();
        let spec = node.get("spec").unwrap();
        assert!(matches!(spec.get("replicas").unwrap().value, Value::Integer(2)));
        let Value::List(names) = &spec.get("names").unwrap().value else { panic!("{spec:?}") };
        assert_eq!((names.len(), names[0].text(), names[0].line), (4, Some("a"), 0));
    }

    #[test]
    fn what_is_nested_too_deep_or_is_too_much_is_not_read() {
        let mut deep = json!(1);
        for _ in 0..MAX_DEPTH {
            deep = json!([deep]);
        }
        assert!(Node::from_json(&deep).is_none());
        assert!(Node::from_json(&json!(vec![0; 300_000])).is_none());
    }
}
