//! One resource file and what is in force of it, through every state a file can be in.
//!
//! Pure: what was seen and when are arguments. The rules: what cannot be read changes nothing; what takes objects away
//! (a removed file, a shorter one, one whose last line has no end) must stay so for a while first, because a file that
//! is just being written looks the same; everything else holds at once. Knows not how files are found (`folder`).

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use douane_proto::resource::{Doubt, Kind, Resource, parse_file};

/// So long a removal must last before it counts.
pub(crate) const STABLE: Duration = Duration::from_millis(500);

/// What was found at the file's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Its whole text.
    Text(String),
    /// It is there and cannot be read; says why.
    Unreadable(String),
    /// It is not there.
    Missing,
}

/// A file and what is in force of it.
#[derive(Debug)]
pub(crate) struct ResourceFile {
    path: Arc<Path>,
    good: Option<Good>,
    errors: Vec<String>,
    /// What a broken file meant to govern; counts only while nothing good is known.
    doubts: Vec<Doubt>,
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Good {
    text: String,
    resources: Vec<Resource>,
}

#[derive(Debug)]
struct Pending {
    since: Instant,
    /// `None`: the file is gone.
    good: Option<Good>,
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing that matters to others.
    Same,
    /// Its errors are other ones now, its objects are not.
    Errors,
    /// Its objects may be other ones now.
    Objects,
    /// It is gone for good.
    Gone,
}

impl ResourceFile {
    /// A file of which nothing is known but the text that was good when the last control plane ran.
    pub(crate) fn new(path: Arc<Path>, kept: Option<String>) -> Self {
        let good = kept.and_then(|text| {
            let resources = parse_file(&path, &text).ok()?;
            Some(Good { text, resources })
        });
        Self { path, good, errors: Vec::new(), doubts: Vec::new(), pending: None }
    }

    /// Takes in what was seen at `now`.
    pub(crate) fn see(&mut self, seen: Seen, now: Instant) -> Outcome {
        match seen {
            Seen::Text(text) => self.read(text, now),
            Seen::Unreadable(why) => {
                self.pending = None;
                // Nobody knows whom a law in it governs.
                self.fail(vec![format!("{}: {why}", self.path.display())], vec![Doubt::default()])
            }
            Seen::Missing => {
                if self.pending.as_ref().is_none_or(|pending| pending.good.is_some()) {
                    self.pending = Some(Pending { since: now, good: None });
                }
                self.ripen(now)
            }
        }
    }

    /// Lets what waited long enough come into force.
    pub(crate) fn ripen(&mut self, now: Instant) -> Outcome {
        let Some(pending) = self.pending.take_if(|pending| now >= pending.since + STABLE) else {
            return Outcome::Same;
        };
        match pending.good {
            Some(good) => self.succeed(good),
            None => Outcome::Gone,
        }
    }

    /// When [`Self::ripen`] is worth calling.
    pub(crate) fn ripe_at(&self) -> Option<Instant> {
        self.pending.as_ref().map(|pending| pending.since + STABLE)
    }

    /// What is in force of it.
    pub(crate) fn resources(&self) -> &[Resource] {
        self.good.as_ref().map_or(&[], |good| &good.resources)
    }

    /// The text that is in force.
    pub(crate) fn good_text(&self) -> Option<&str> {
        self.good.as_ref().map(|good| good.text.as_str())
    }

    /// What is wrong with it now, with lines.
    pub(crate) fn errors(&self) -> &[String] {
        &self.errors
    }

    /// What must be denied because a law cannot be read and none of it was ever known.
    pub(crate) fn doubts(&self) -> &[Doubt] {
        if self.good.is_some() { &[] } else { &self.doubts }
    }

    fn read(&mut self, text: String, now: Instant) -> Outcome {
        if self.good.as_ref().is_some_and(|good| good.text == text) {
            // Back to what is in force: whatever waited is void.
            self.pending = None;
            return self.clear_errors();
        }
        let resources = match parse_file(&self.path, &text) {
            Ok(resources) => resources,
            Err(errors) => {
                self.pending = None;
                let doubts = doubts(&self.path, &text);
                return self.fail(errors.iter().map(ToString::to_string).collect(), doubts);
            }
        };
        let fresh = Good { text, resources };
        if !self.takes_away(&fresh) {
            return self.succeed(fresh);
        }
        if !self.pending.as_ref().is_some_and(|pending| pending.is_same(&fresh)) {
            self.pending = Some(Pending { since: now, good: Some(fresh) });
        }
        match self.ripen(now) {
            Outcome::Same => self.clear_errors(),
            ripe => ripe,
        }
    }

    fn succeed(&mut self, good: Good) -> Outcome {
        self.good = Some(good);
        self.pending = None;
        self.errors.clear();
        self.doubts.clear();
        Outcome::Objects
    }

    fn fail(&mut self, errors: Vec<String>, doubts: Vec<Doubt>) -> Outcome {
        if self.errors == errors && self.doubts == doubts {
            return Outcome::Same;
        }
        (self.errors, self.doubts) = (errors, doubts);
        Outcome::Errors
    }

    fn clear_errors(&mut self) -> Outcome {
        if self.errors.is_empty() {
            return Outcome::Same;
        }
        self.errors.clear();
        self.doubts.clear();
        Outcome::Errors
    }

    // A cut file may still be valid: it ends too early, or within its last line.
    fn takes_away(&self, fresh: &Good) -> bool {
        let Some(good) = &self.good else { return false };
        !fresh.text.ends_with('\n') || !names(&good.resources).is_subset(&names(&fresh.resources))
    }
}

impl Pending {
    fn is_same(&self, fresh: &Good) -> bool {
        self.good.as_ref().is_some_and(|good| good.text == fresh.text)
    }
}

fn names(resources: &[Resource]) -> BTreeSet<(&str, &str, &str)> {
    let name = |resource: &Resource| resource.kind.name();
    resources.iter().map(|one| (name(one), &*one.metadata.namespace, &*one.metadata.name)).collect()
}

// A broken file is refused whole, so that the sound laws in it are in doubt as well: their scopes are denied, too.
fn doubts(path: &Arc<Path>, text: &str) -> Vec<Doubt> {
    if text.trim().is_empty() {
        // Cut to nothing, perhaps; nobody knows what it said.
        return vec![Doubt::default()];
    }
    let mut doubts = Vec::new();
    for document in documents(text) {
        match parse_file(path, &document) {
            Ok(resources) => doubts.extend(resources.iter().filter_map(scope_of_law)),
            Err(errors) => doubts.extend(errors.into_iter().filter_map(|error| error.doubt)),
        }
    }
    doubts
}

fn scope_of_law(resource: &Resource) -> Option<Doubt> {
    let Kind::AuthorizationPolicy(law) = &resource.kind else { return None };
    Some(Doubt {
        namespace: Some(law.scope.namespace.clone()),
        name: Some(resource.metadata.name.clone()),
        selector: Some(law.scope.selector.clone()),
    })
}

// `---` at the beginning of a line ends a document wherever it stands (YAML 1.2, 9.1.2).
fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.split_inclusive('\n') {
        let is_marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if is_marker {
            documents.push(String::new());
        }
        if let Some(last) = documents.last_mut() {
            last.push_str(line);
        }
    }
    documents
}
