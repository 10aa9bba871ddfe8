//! The API server's questions and our answers: `admission.k8s.io/v1`, `AdmissionReview`. Plain JSON, read as a tree so that no
//! field of the object is lost.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::inject::{Step, Tree};

const VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// A UUID has 36.
const MAX_UID: usize = 128;
/// Kubernetes cuts longer ones (256 each, 4096 in all) by itself, or drops them.
const MAX_WARNING: usize = 250;
/// See [`MAX_WARNING`].
const MAX_WARNINGS: usize = 15;

/// A question.
#[derive(Debug, Clone, PartialEq)]
pub struct Review {
    /// Comes back with the answer.
    pub uid: String,
    /// What is to be stored.
    pub kind: String,
    /// Where.
    pub namespace: String,
    /// The object.
    pub object: Tree,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Verdict {
    /// Why it is not let in.
    pub refused: Option<String>,
    /// What is to be changed.
    pub patch: Vec<Step>,
    /// What kubectl shows.
    pub warnings: Vec<String>,
}

/// A body that is no question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is no {KIND} of {VERSION}: {0}")]
pub struct NoReview(String);

impl Review {
    /// Reads a body.
    ///
    /// # Errors
    /// [`NoReview`]: it is answered as a whole, and nothing is let in.
    pub fn parse(body: &[u8]) -> Result<Self, NoReview> {
        let wrong = |what: &str| NoReview(what.to_owned());
        let mut read: Tree = serde_json::from_slice(body).map_err(|error| NoReview(error.to_string()))?;
        let says = |field, expected| read.get(field).and_then(Tree::text) == Some(expected);
        if !says("apiVersion", VERSION) || !says("kind", KIND) {
            return Err(wrong("apiVersion and kind are others"));
        }
        let request = read.get_mut("request").ok_or_else(|| wrong("there is no request"))?;
        let text = |path: &[&str]| request.at(path).and_then(Tree::text).unwrap_or_default().to_owned();
        let (uid, kind, namespace) = (text(&["uid"]), text(&["kind", "kind"]), text(&["namespace"]));
        if uid.is_empty() || uid.len() > MAX_UID {
            return Err(wrong("request.uid is none"));
        }
        let object = request.as_map_mut().and_then(|request| request.remove("object"));
        let object = object.filter(|object| object.as_map().is_some());
        Ok(Self { uid, kind, namespace, object: object.ok_or_else(|| wrong("request.object is none"))? })
    }
}

impl Verdict {
    /// Nothing to say.
    #[must_use]
    pub fn refused(why: String) -> Self {
        Self { refused: Some(why), ..Self::default() }
    }

    /// The answer's body.
    #[must_use]
    pub fn write(&self, uid: &str) -> String {
        let mut response = vec![("uid", Tree::from(uid)), ("allowed", Tree::from(self.refused.is_none()))];
        if let Some(why) = &self.refused {
            let status = [
                ("code", Tree::from(FORBIDDEN)),
                ("reason", "Forbidden".into()),
                ("message", why.as_str().into()),
            ];
            response.push(("status", Tree::map(status)));
        } else if !self.patch.is_empty() {
            // Steps are texts and trees: there is nothing that JSON cannot say.
            let patch = serde_json::to_vec(&self.patch).unwrap_or_default();
            response.push(("patchType", "JSONPatch".into()));
            response.push(("patch", STANDARD.encode(patch).into()));
        }
        if !self.warnings.is_empty() {
            let short = |text: &String| text.chars().take(MAX_WARNING).collect::<String>();
            response.push(("warnings", Tree::texts(self.warnings.iter().take(MAX_WARNINGS).map(short))));
        }
        let review =
            [("apiVersion", Tree::from(VERSION)), ("kind", KIND.into()), ("response", Tree::map(response))];
        Tree::map(review).json_text()
    }
}

const FORBIDDEN: u64 = 403;
