//! Reads an object of the law to its end, whatever is wrong with it: each flaw is gathered, and named in the part that it
//! stands in, so that the rest can still be enforced.
//!
//! Knows no kinds; what an unreadable part means for a decision is said where policies are compiled ([`crate::policy`]).

use std::cell::RefCell;

use crate::yaml::{Cursor, Fields, Flaw};

/// What stands for a part that is not even a map of fields.
const WHOLE: &str = "all of it";
/// Of one document; nobody reads more, and a hostile one has as many as it likes.
const MAX_FLAWS: usize = 500;

/// What is wrong with one document, in the order in which it was found.
#[derive(Debug, Default)]
pub(super) struct Flaws {
    found: RefCell<Vec<Found>>,
}

/// A flaw, and the path of the field that it concerns.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: String,
    pub(super) flaw: Flaw,
}

/// A part of an object: a map of fields, each of which is read even if others cannot be.
#[derive(Debug)]
pub(super) struct Part<'a, 'f> {
    fields: Option<Fields<'a>>,
    path: String,
    flaws: &'f Flaws,
    unreadable: RefCell<Vec<String>>,
}

impl Flaws {
    /// Adds one that concerns the field at `path`.
    pub(super) fn add(&self, path: &str, flaw: Flaw) {
        let mut found = self.found.borrow_mut();
        if found.len() < MAX_FLAWS {
            found.push(Found { path: path.to_owned(), flaw });
        }
    }

    /// What was read; `None` where it is unreadable, which is then known.
    pub(super) fn kept<T>(&self, read: Result<T, Flaw>) -> Option<T> {
        read.map_err(|flaw| self.add("", flaw)).ok()
    }

    /// Does one of them concern `path`, something in it, or something that holds it?
    pub(super) fn concern(&self, path: &str) -> bool {
        let within = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.found.borrow().iter().any(|found| within(&found.path, path) || within(path, &found.path))
    }

    /// All of them, by line.
    pub(super) fn into_flaws(self) -> Vec<Flaw> {
        let mut flaws: Vec<Flaw> = self.found.into_inner().into_iter().map(|found| found.flaw).collect();
        flaws.sort_by_key(|flaw| flaw.line);
        flaws
    }
}

impl<'a, 'f> Part<'a, 'f> {
    /// The part that stands at `at`. One that is no map has no fields, and is unreadable as a whole.
    pub(super) fn open(at: &Cursor<'a>, flaws: &'f Flaws) -> Self {
        let part = |fields, unreadable| Self {
            fields,
            path: at.name().to_owned(),
            flaws,
            unreadable: RefCell::new(unreadable),
        };
        match at.fields() {
            Ok(fields) => part(Some(fields), Vec::new()),
            Err(flaw) => {
                flaws.add(at.name(), flaw);
                part(None, vec![WHOLE.to_owned()])
            }
        }
    }

    /// A field that may be absent.
    pub(super) fn optional(&self, key: &'static str) -> Option<Cursor<'a>> {
        match self.fields.as_ref()?.optional(key) {
            Ok(found) => found,
            Err(flaw) => {
                self.refuse(key, flaw);
                None
            }
        }
    }

    /// A field that may be absent or `null`.
    pub(super) fn nullable(&self, key: &'static str) -> Option<Cursor<'a>> {
        self.fields.as_ref()?.nullable(key)
    }

    /// Fields that are known and of no interest.
    pub(super) fn pass_over(&self, keys: &[&'static str]) {
        if let Some(fields) = &self.fields {
            fields.pass_over(keys);
        }
    }

    /// A field that must be there, as what `read` makes of it.
    pub(super) fn required_as<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Cursor<'a>) -> Result<T, Flaw>,
    ) -> Option<T> {
        let at = self.required(key)?;
        self.kept(key, read(&at))
    }

    /// What was read of a field; `None` where it is unreadable, which is then known.
    pub(super) fn kept<T>(&self, key: &str, read: Result<T, Flaw>) -> Option<T> {
        read.map_err(|flaw| self.refuse(key, flaw)).ok()
    }

    /// A field that must be there.
    pub(super) fn required(&self, key: &'static str) -> Option<Cursor<'a>> {
        match self.fields.as_ref()?.required(key) {
            Ok(found) => Some(found),
            Err(flaw) => {
                self.refuse(key, flaw);
                None
            }
        }
    }

    /// `read` applied to a field, or the default when it is absent or unreadable.
    pub(super) fn read<T: Default>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Cursor<'a>) -> Result<T, Flaw>,
    ) -> T {
        let Some(at) = self.optional(key) else { return T::default() };
        self.kept(key, read(&at)).unwrap_or_default()
    }

    /// The entries of a list of parts; none when it is absent or unreadable.
    pub(super) fn list(&self, key: &'static str) -> Vec<Cursor<'a>> {
        self.read(key, Cursor::list)
    }

    /// Says that a field cannot be read, and why.
    pub(super) fn refuse(&self, key: &str, flaw: Flaw) {
        self.flaws.add(&format!("{}.{key}", self.path), flaw);
        self.doubt(key);
    }

    /// Names a field as unreadable whose flaw is known already.
    pub(super) fn doubt(&self, key: &str) {
        if !self.is_unreadable(key) {
            self.unreadable.borrow_mut().push(key.to_owned());
        }
    }

    /// Where it collects what is wrong.
    pub(super) fn flaws(&self) -> &'f Flaws {
        self.flaws
    }

    /// Could this field not be read?
    pub(super) fn is_unreadable(&self, key: &str) -> bool {
        self.fields.is_none() || self.unreadable.borrow().iter().any(|known| known == key)
    }

    /// Ends the reading: a field that nobody asked for cannot be read either. Answers what could not be.
    pub(super) fn end(self) -> Vec<String> {
        let strangers = self.fields.as_ref().map(Fields::strangers).unwrap_or_default();
        for (key, flaw) in strangers {
            self.refuse(&key, flaw);
        }
        self.unreadable.into_inner()
    }
}
