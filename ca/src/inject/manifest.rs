//! A file of manifests in, the same file with sidecars out. Documents that nothing happens to pass byte for byte; in those
//! that are written anew the comments above them stay, and those inside are lost.

use douane_proto::yaml::{Part, Work, parse, split};

use super::{
    pod::{Change, Outcome, Terms, uninject},
    template::{Maker, is_list, maker},
    tree::Tree,
    write,
};

/// Nodes of one file; a chart of a large system has some ten thousand.
const MAX_NODES: usize = 1_000_000;
/// Lists in lists are nobody's.
const MAX_LISTS: usize = 4;

/// What to do.
#[derive(Debug, Clone, Copy)]
pub enum Task<'a> {
    /// Put sidecars in.
    Inject {
        /// On these terms.
        terms: &'a Terms,
        /// The namespace of objects that say none.
        namespace: &'a str,
    },
    /// Take them out.
    Uninject,
}

/// A file, done.
#[derive(Debug, Clone, Default)]
pub struct Done {
    /// Its documents in order.
    pub documents: Vec<Document>,
    /// What became of each object that makes pods.
    pub told: Vec<Told>,
}

/// A document.
#[derive(Debug, Clone)]
pub struct Document {
    /// As it was.
    pub before: String,
    /// What to write.
    pub text: String,
    /// What was read, as it is now; `None` where nothing stands.
    pub object: Option<Tree>,
    /// What was read, written in our way: what a difference is taken from. `None` where nothing was changed.
    pub plain: Option<String>,
}

/// What became of an object.
#[derive(Debug, Clone)]
pub struct Told {
    /// Its line in the file.
    pub line: u32,
    /// `Deployment shop/web`
    pub subject: String,
    /// What became of it.
    pub fate: Fate,
}

/// What became of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// A sidecar was put in; and what is to be known of it.
    Injected(Vec<Change>, Vec<String>),
    /// It has one and is as it would be made now.
    Unchanged,
    /// The sidecar was taken out.
    Uninjected,
    /// Nothing was done, for this reason.
    Skipped(String),
    /// Nothing can be done, for this reason.
    Refused(String),
}

/// A text that is no manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Unreadable {
    /// Counted from 1.
    pub line: u32,
    /// What is wrong.
    pub what: String,
}

/// Does the task on a file's text.
///
/// # Errors
/// [`Unreadable`]: nothing is done where something cannot be read.
pub fn rewrite(text: &str, task: Task<'_>) -> Result<Done, Unreadable> {
    let mut work = Work::of(MAX_NODES).as_kubernetes();
    let mut done = Done::default();
    for part in split(text) {
        let node =
            parse(part, &mut work).map_err(|error| Unreadable { line: error.line, what: error.what })?;
        let line = node.line;
        let read = Tree::read(&node).map_err(|at| Unreadable {
            line: at.0,
            what: "the number is none that Kubernetes can read".to_owned(),
        })?;
        done.document(part, line, &read, task);
    }
    Ok(done)
}

impl Done {
    /// All of it, as one file.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for document in &self.documents {
            join(&mut text, &document.text);
        }
        text
    }

    /// Was something refused?
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.told.iter().any(|told| matches!(told.fate, Fate::Refused(_)))
    }

    fn document(&mut self, part: Part<'_>, line: u32, read: &Tree, task: Task<'_>) {
        let mut object = read.clone();
        self.object(&mut object, line, task, 0);
        let before = part.text.to_owned();
        if object == *read {
            let object = (!matches!(object, Tree::Null)).then_some(object);
            return self.documents.push(Document { text: before.clone(), before, object, plain: None });
        }
        let text = format!("{}{}", head(part.text), write::yaml(&object));
        let plain = Some(write::yaml(read));
        self.documents.push(Document { before, text, object: Some(object), plain });
    }

    fn object(&mut self, object: &mut Tree, line: u32, task: Task<'_>, depth: usize) {
        if is_list(object) && depth < MAX_LISTS {
            if let Some(Tree::List(items)) = object.get_mut("items") {
                items.iter_mut().for_each(|item| self.object(item, line, task, depth + 1));
            }
            return;
        }
        let Some(maker) = maker(object) else { return };
        let Some(pod) = (match maker.path {
            [] => Some(&mut *object),
            path => object.at_mut(path),
        }) else {
            return;
        };
        let fate = match task {
            Task::Uninject => take_out(pod),
            Task::Inject { terms, namespace } => {
                put_in(pod, terms, maker.namespace.as_deref().unwrap_or(namespace))
            }
        };
        self.told.push(Told { line, subject: subject(&maker), fate });
    }
}

/// Appends a document to others, with a mark between them where there is none.
pub fn join(text: &mut String, document: &str) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    if !text.is_empty() && !document.starts_with("---") {
        text.push_str("---\n");
    }
    text.push_str(document);
}

fn put_in(pod: &mut Tree, terms: &Terms, namespace: &str) -> Fate {
    match terms.inject(pod, namespace) {
        Outcome::Injected(injected) if injected.pod == *pod => Fate::Unchanged,
        Outcome::Injected(injected) => {
            *pod = injected.pod;
            Fate::Injected(injected.changes, injected.warnings)
        }
        Outcome::Skipped(why) => Fate::Skipped(why),
        Outcome::Refused(why) => Fate::Refused(why),
    }
}

fn take_out(pod: &mut Tree) -> Fate {
    match uninject(pod) {
        Ok(Some(bare)) => {
            *pod = bare;
            Fate::Uninjected
        }
        Ok(None) => Fate::Skipped("it has no sidecar of ours".to_owned()),
        Err(why) => Fate::Refused(why),
    }
}

fn subject(maker: &Maker) -> String {
    let namespace = maker.namespace.as_ref().map(|it| format!("{it}/")).unwrap_or_default();
    format!("{} {namespace}{}", maker.kind, maker.name)
}

// The mark of a document and the comments above it: licences, and where a chart has it from.
fn head(text: &str) -> String {
    let is_head = |line: &&str| line.trim().is_empty() || line.starts_with('#') || line.trim_end() == "---";
    let mut head: String = text.split_inclusive('\n').take_while(is_head).collect();
    // `--- # comment`, or a document that stands behind its mark.
    if head.is_empty() && text.starts_with("---") {
        head = "---\n".to_owned();
    }
    head
}
