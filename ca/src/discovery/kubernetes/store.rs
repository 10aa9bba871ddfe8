//! All objects that the API has told of, by kind, and what is in force of them all.
//!
//! Pure: it hears what the watches say. A list takes the place of what was known only when it is whole; what breaks
//! changes nothing; and nothing is served before the first list of every kind. Knows not how a kind is watched (`watch`).

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
};

use douane_proto::resource::{Doubt, Resource};

use super::{
    document::{Document, Key},
    kinds::{KINDS, Role, Watched},
    object::{Object, Outcome},
    residents::settle_addresses,
};
use crate::discovery::{
    folder::{Loaded, Scan},
    notes::Note,
};

/// More objects of a kind than this are not taken in: a control plane that runs out of memory serves nobody.
const MAX_OBJECTS: usize = 200_000;
/// The same for kinds of the law, each of which is a decision at each request.
const MAX_LAWS: usize = 10_000;

/// What a watch of a kind says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    /// A list begins: what follows will take the place of all that was known.
    Begun,
    /// Part of the list.
    Listed(Vec<Document>),
    /// The list is whole.
    Whole,
    /// The API does not know the kind.
    Absent,
    /// An object is there, or is another one now.
    Applied(Document),
    /// An object is gone.
    Deleted(Key),
    /// The watch is broken; says why.
    Broken(String),
    /// The watch holds again.
    Mended,
}

/// All objects that the API has told of.
#[derive(Debug)]
pub(crate) struct Store {
    kinds: Vec<Known>,
}

/// What is known of one kind.
#[derive(Debug)]
struct Known {
    watched: &'static Watched,
    objects: BTreeMap<Key, Object>,
    /// A list that is not whole yet.
    listing: Option<BTreeMap<Key, Object>>,
    is_listed: bool,
    trouble: Option<String>,
    /// How many objects there was no room for.
    left_out: usize,
}

impl Store {
    pub(crate) fn new() -> Self {
        let known = |watched| Known {
            watched,
            objects: BTreeMap::new(),
            listing: None,
            is_listed: false,
            trouble: None,
            left_out: 0,
        };
        Self { kinds: KINDS.iter().map(known).collect() }
    }

    /// Takes in what was said about the kinds (by their place in [`KINDS`]), in this order.
    pub(crate) fn hear(&mut self, said: VecDeque<(usize, Said)>) -> Scan {
        let mut scan = Scan::Same;
        for (kind, said) in said {
            let Some(known) = self.kinds.get_mut(kind) else { continue };
            scan = scan.max(match known.hear(said) {
                Outcome::Same => Scan::Same,
                Outcome::Noted => Scan::Noted,
                Outcome::Changed => Scan::Changed,
            });
        }
        scan
    }

    /// Everything that is in force.
    pub(crate) fn loaded(&self) -> Loaded {
        let mut loaded = Loaded::default();
        let mut resources: Vec<Resource> = Vec::new();
        for known in &self.kinds {
            let objects = || known.objects.values();
            resources.extend(objects().filter_map(|object| object.resource().cloned()));
            loaded
                .errors
                .extend(objects().flat_map(|object| object.errors().iter().map(ToString::to_string)));
            loaded.doubts.extend(objects().flat_map(|object| object.doubts().iter().cloned()));
            let trouble = known.trouble();
            if !known.is_listed || (known.left_out > 0 && known.watched.role == Role::Law) {
                // It may hold any law.
                loaded.doubts.push(Doubt::default());
            }
            loaded.troubles.extend(trouble);
        }
        settle_addresses(&mut resources);
        loaded.resources.push(resources);
        loaded
    }

    /// What operators wrote, with what is noted about it; nothing while it is not known of every kind what there is.
    pub(crate) fn notes(&self) -> Vec<Note> {
        if self.kinds.iter().any(|known| !known.is_listed) {
            return Vec::new();
        }
        let written = self.kinds.iter().filter(|known| known.watched.role != Role::Core);
        written
            .flat_map(|known| known.objects.iter().map(|(key, object)| note(known.watched, key, object)))
            .collect()
    }
}

impl Known {
    fn hear(&mut self, said: Said) -> Outcome {
        match said {
            Said::Begun => {
                self.listing = Some(BTreeMap::new());
                self.left_out = 0;
                Outcome::Same
            }
            Said::Listed(documents) => {
                documents.into_iter().for_each(|document| self.list(document));
                Outcome::Same
            }
            Said::Whole => self.replace(),
            // Whoever lists nothing has nothing; what we hold was deleted with its kind.
            Said::Absent => {
                self.listing = Some(BTreeMap::new());
                self.replace()
            }
            Said::Applied(document) => self.apply(document),
            Said::Deleted(key) => match self.objects.remove(&key) {
                Some(_) => Outcome::Changed,
                None => Outcome::Same,
            },
            Said::Broken(why) => self.turn(Some(why)),
            Said::Mended => self.turn(None),
        }
    }

    fn turn(&mut self, trouble: Option<String>) -> Outcome {
        let before = mem::replace(&mut self.trouble, trouble);
        if before == self.trouble { Outcome::Same } else { Outcome::Changed }
    }

    fn list(&mut self, document: Document) {
        let Some(listing) = &mut self.listing else { return };
        if listing.len() >= room(self.watched) {
            self.left_out += 1;
            return;
        }
        let key = document.key.clone();
        let object = match self.objects.get(&key) {
            Some(known) => {
                let mut object = known.clone();
                object.see(self.watched, document);
                object
            }
            None => Object::new(self.watched, document),
        };
        listing.insert(key, object);
    }

    fn replace(&mut self) -> Outcome {
        let Some(listing) = self.listing.take() else { return Outcome::Same };
        let was_listed = mem::replace(&mut self.is_listed, true);
        let had_trouble = self.trouble.take().is_some();
        let before = mem::replace(&mut self.objects, listing);
        if was_listed && !had_trouble && before == self.objects { Outcome::Same } else { Outcome::Changed }
    }

    fn apply(&mut self, document: Document) -> Outcome {
        if let Some(object) = self.objects.get_mut(&document.key) {
            return object.see(self.watched, document);
        }
        if self.objects.len() >= room(self.watched) {
            self.left_out += 1;
            return Outcome::Changed;
        }
        self.objects.insert(document.key.clone(), Object::new(self.watched, document));
        Outcome::Changed
    }

    fn trouble(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        let name = self.watched.name();
        match &self.trouble {
            Some(why) => troubles.push(format!("{name} cannot be watched: {why}")),
            None if !self.is_listed => troubles.push(format!("{name} are not listed yet")),
            None => {}
        }
        if self.left_out > 0 {
            let most = room(self.watched);
            troubles.push(format!("there are more than {most} {name}; {} are left out", self.left_out));
        }
        troubles
    }
}

fn note(watched: &'static Watched, (namespace, name): &Key, object: &Object) -> Note {
    Note {
        kind: watched.kind,
        plural: watched.plural,
        group: watched.group,
        versions: watched.versions,
        namespace: namespace.clone(),
        name: name.clone(),
        generation: object.generation,
        resource_version: object.resource_version.clone(),
        conditions: object.conditions.clone(),
        resource: object.resource().cloned(),
        errors: object.errors().to_vec(),
    }
}

fn room(watched: &Watched) -> usize {
    if watched.role == Role::Law { MAX_LAWS } else { MAX_OBJECTS }
}
