//! From the text of a file to its resources: splits documents, finds each one's kind, and gathers what is wrong.

use std::{path::Path, sync::Arc};

use super::{
    doubt,
    error::{Doubt, Location, ResourceError},
    external::ServiceEntry,
    metadata::Metadata,
    security::{AuthorizationPolicy, PeerAuthentication},
    service::Service,
    workload::{Deployment, Pod},
};
use crate::yaml::{self, Cause, Cursor, Fields, Flaw, Manner, Node, Part, Value, Work, bounded};

/// Larger files are refused unread; a Kubernetes object is 1.5 MiB at most.
const MAX_FILE_BYTES: usize = 1024 * 1024;
/// More documents in one file are refused.
const MAX_DOCUMENTS: usize = 2_000;

/// An object that somebody wrote, and where.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// The first line of its document.
    pub location: Location,
    /// What names and describes it.
    pub metadata: Metadata,
    /// What it is.
    pub kind: Kind,
}

/// What an object is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `v1` `Namespace`.
    Namespace,
    /// `v1` `ServiceAccount`.
    ServiceAccount,
    /// `v1` `Pod`.
    Pod(Box<Pod>),
    /// `apps/v1` `Deployment`.
    Deployment(Box<Deployment>),
    /// `v1` `Service`.
    Service(Service),
    /// `networking.istio.io` `ServiceEntry`.
    ServiceEntry(ServiceEntry),
    /// `security.istio.io` `AuthorizationPolicy`.
    AuthorizationPolicy(AuthorizationPolicy),
    /// `security.istio.io` `PeerAuthentication`.
    PeerAuthentication(PeerAuthentication),
}

impl Kind {
    /// Its name, as YAML has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::ServiceAccount => "ServiceAccount",
            Self::Pod(_) => "Pod",
            Self::Deployment(_) => "Deployment",
            Self::Service(_) => "Service",
            Self::ServiceEntry(_) => "ServiceEntry",
            Self::AuthorizationPolicy(_) => "AuthorizationPolicy",
            Self::PeerAuthentication(_) => "PeerAuthentication",
        }
    }
}

/// Reads the text of one file, all of it or nothing.
///
/// # Errors
/// One for each document that cannot be read; one of [`Cause::Empty`] when there is no document at all.
///
/// ```
/// use std::path::Path;
/// use douane_proto::resource::{Kind, parse_file};
///
/// let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
/// let resources = parse_file(Path::new("shop.yaml"), text).unwrap();
/// assert_eq!(resources[0].kind, Kind::Namespace);
///
/// let errors = parse_file(Path::new("shop.yaml"), "kind: Namespac\napiVersion: v1\n").unwrap_err();
/// assert!(errors[0].to_string().starts_with("shop.yaml:1: "));
/// ```
pub fn parse_file(path: &Path, text: &str) -> Result<Vec<Resource>, Vec<ResourceError>> {
    let (resources, errors) = read_all(path, text);
    if errors.is_empty() { Ok(resources) } else { Err(errors) }
}

/// Whom a file that cannot be read meant to govern. It is refused whole, so that the sound laws in it are in doubt as
/// well: their scopes are among these.
#[must_use]
pub fn doubts(path: &Path, text: &str) -> Vec<Doubt> {
    let (resources, errors) = read_all(path, text);
    let sound = resources.iter().filter_map(scope_of_law);
    sound.chain(errors.into_iter().filter_map(|error| error.doubt)).collect()
}

// What is sound of a file, and what is wrong with the rest; nothing sound without an error is never the answer.
fn read_all(path: &Path, text: &str) -> (Vec<Resource>, Vec<ResourceError>) {
    let file = File { path: path.into() };
    let refused = |error| (Vec::new(), vec![error]);
    if text.len() > MAX_FILE_BYTES {
        return refused(file.bound(format!("{} bytes are too many", text.len()), text));
    }
    let parts = yaml::split(text);
    if parts.len() > MAX_DOCUMENTS {
        return refused(file.bound(format!("{} documents are too many", parts.len()), text));
    }
    let (mut resources, mut errors) = (Vec::new(), Vec::new());
    let mut work = Work::new();
    for part in parts {
        if work.is_done() {
            // One bomb is enough: what follows it is not read, and may be anything.
            errors.push(file.unread(part));
            break;
        }
        match file.read(part, &mut work) {
            Ok(found) => resources.extend(found),
            Err(error) => errors.push(*error),
        }
    }
    if resources.is_empty() && errors.is_empty() {
        errors.push(file.empty());
    }
    (resources, errors)
}

fn scope_of_law(resource: &Resource) -> Option<Doubt> {
    let Kind::AuthorizationPolicy(law) = &resource.kind else { return None };
    Some(Doubt {
        namespace: Some(law.scope.namespace.clone()),
        name: Some(resource.metadata.name.clone()),
        selector: Some(law.scope.selector.clone()),
    })
}

struct File {
    path: Arc<Path>,
}

impl File {
    // A document without content (before the first `---`, or after the last) is none.
    fn read(&self, part: Part<'_>, work: &mut Work) -> Result<Option<Resource>, Box<ResourceError>> {
        let node = yaml::parse(part, work).map_err(|error| {
            Box::new(ResourceError {
                location: self.line(error.line),
                subject: None,
                what: format!("this is no valid YAML: {}", error.what),
                mend: "mend the line, or the one above it; the file may be half written".to_owned(),
                cause: Cause::Syntax,
                doubt: doubt::of_text(part.text, error.line.saturating_sub(part.before), work),
            })
        })?;
        if matches!(node.value, Value::Null) {
            return Ok(None);
        }
        match read_document(&node) {
            Ok((metadata, kind)) => Ok(Some(Resource { location: self.line(node.line), metadata, kind })),
            Err(flaw) => Err(Box::new(ResourceError {
                location: self.line(flaw.line),
                subject: doubt::subject(&node),
                what: flaw.what,
                mend: flaw.mend,
                cause: flaw.cause,
                doubt: doubt::of_node(&node),
            })),
        }
    }

    fn line(&self, line: u32) -> Location {
        Location { file: Arc::clone(&self.path), line }
    }

    fn bound(&self, what: String, text: &str) -> ResourceError {
        let may_hold_law = doubt::LAWS.iter().any(|kind| text.contains(kind));
        ResourceError {
            location: self.line(1),
            subject: None,
            what,
            mend: format!(
                "{MAX_FILE_BYTES} bytes and {MAX_DOCUMENTS} documents are the most; split the file"
            ),
            cause: Cause::Bound,
            doubt: may_hold_law.then(Doubt::default),
        }
    }

    // Cut to nothing, or to its first comment, perhaps; nobody knows what it said.
    fn empty(&self) -> ResourceError {
        ResourceError {
            location: self.line(1),
            subject: None,
            what: "the file holds no document".to_owned(),
            mend: "write one, or remove the file to remove its objects".to_owned(),
            cause: Cause::Empty,
            doubt: Some(Doubt::default()),
        }
    }

    fn unread(&self, part: Part<'_>) -> ResourceError {
        ResourceError {
            location: self.line(part.before.saturating_add(1)),
            subject: None,
            what: "from here on the file is not read: what stands above is too much already".to_owned(),
            mend: "split the file, and use fewer aliases".to_owned(),
            cause: Cause::Bound,
            doubt: Some(Doubt::default()),
        }
    }
}

fn read_document(node: &Node) -> Result<(Metadata, Kind), Flaw> {
    let document = Cursor::root(node, Manner::Strict).fields()?;
    let version_at = document.required("apiVersion")?;
    let kind_at = document.required("kind")?;
    let (version, kind) = (version_at.text()?, kind_at.text()?);
    let (group, version) = version.rsplit_once('/').unwrap_or(("", &version));
    match (group, version, kind.as_str()) {
        ("", "v1", "Namespace") => plain(node, |_| Ok(Kind::Namespace)).map(|(mut metadata, kind)| {
            metadata.namespace.clear();
            (metadata, kind)
        }),
        ("", "v1", "ServiceAccount") => plain(node, |_| Ok(Kind::ServiceAccount)),
        ("", "v1", "Pod") => plain(node, |fields| Ok(Kind::Pod(Pod::read(fields)?.into()))),
        ("", "v1", "Service") => plain(node, |fields| Ok(Kind::Service(Service::read(fields)?))),
        ("apps", "v1", "Deployment") => {
            plain(node, |fields| Ok(Kind::Deployment(Deployment::read(fields)?.into())))
        }
        ("networking.istio.io", "v1" | "v1beta1" | "v1alpha3", "ServiceEntry") => {
            strict(document, |fields, _| Ok(Kind::ServiceEntry(ServiceEntry::read(fields)?)))
        }
        ("security.istio.io", "v1" | "v1beta1", "AuthorizationPolicy") => {
            let read = AuthorizationPolicy::read;
            strict(document, |fields, metadata| Ok(Kind::AuthorizationPolicy(read(fields, metadata)?)))
        }
        ("security.istio.io", "v1" | "v1beta1", "PeerAuthentication") => {
            let read = PeerAuthentication::read;
            strict(document, |fields, metadata| Ok(Kind::PeerAuthentication(read(fields, metadata)?)))
        }
        _ => {
            let text = kind_at.text()?;
            let what = format!("{} {} is not implemented", bounded(&version_at.text()?), bounded(&text));
            Err(kind_at.unsupported(what, "remove the document; known: Namespace, ServiceAccount, Pod, Deployment, Service, ServiceEntry, AuthorizationPolicy, PeerAuthentication"))
        }
    }
}

// Kubernetes' own kinds: fields that we need not are passed over.
fn plain(
    node: &Node,
    read: impl FnOnce(&Fields<'_>) -> Result<Kind, Flaw>,
) -> Result<(Metadata, Kind), Flaw> {
    let document = Cursor::root(node, Manner::Lenient).fields()?;
    let metadata = Metadata::read(&document.required("metadata")?)?;
    Ok((metadata, read(&document)?))
}

// The kinds of the law: each field counts.
fn strict(
    document: Fields<'_>,
    read: impl FnOnce(&Fields<'_>, &Metadata) -> Result<Kind, Flaw>,
) -> Result<(Metadata, Kind), Flaw> {
    let metadata = Metadata::read(&document.required("metadata")?)?;
    let kind = read(&document, &metadata)?;
    document.pass_over(&["status"]);
    document.end()?;
    Ok((metadata, kind))
}
