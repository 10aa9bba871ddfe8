//! From the text of a file to its resources: splits documents, finds each one's kind, and gathers what is wrong.

use std::{path::Path, sync::Arc};

use super::{
    authorization::AuthorizationPolicy,
    doubt,
    endpoints::EndpointSlice,
    entry::WorkloadEntry,
    error::{Doubt, Location, ResourceError},
    external::ServiceEntry,
    flaws::{Flaws, Part},
    metadata::Metadata,
    object::{Kind, Resource},
    peer::PeerAuthentication,
    service::Service,
    tokens::RequestAuthentication,
    workload::{Deployment, Pod},
};
use crate::yaml::{self, Cause, Cursor, Fields, Flaw, Manner, Node, Value, Work, bounded};

/// Larger files are refused unread; a Kubernetes object is 1.5 MiB at most.
const MAX_FILE_BYTES: usize = 1024 * 1024;
/// More documents in one file are refused.
const MAX_DOCUMENTS: usize = 2_000;

/// What could be read of a document, and all that is wrong with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Of an object of the law with flaws: what can be enforced of it, so that it never allows more than it would without
    /// them. `None` where it is not even known what it is, and for other kinds with flaws.
    pub resource: Option<Resource>,
    /// By line.
    pub flaws: Vec<ResourceError>,
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
    let (resources, errors) = read_file(path, text);
    if errors.is_empty() { Ok(resources) } else { Err(errors) }
}

/// Reads the text of one file: the objects that are sound, and what is wrong with the rest. Whoever enforces it takes
/// all or nothing ([`parse_file`]).
#[must_use]
pub fn read_file(path: &Path, text: &str) -> (Vec<Resource>, Vec<ResourceError>) {
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
            Err(found) => errors.extend(found),
        }
    }
    if resources.is_empty() && errors.is_empty() {
        errors.push(file.empty());
    }
    (resources, errors)
}

/// Reads one document that stands somewhere in `file`, whatever is wrong with it.
#[must_use]
pub fn read_law(node: &Node, file: &Path) -> Reading {
    File { path: file.into() }.reading(node)
}

/// Whom a file that cannot be read meant to govern. It is refused whole, so that the sound laws in it are in doubt as
/// well: their scopes are among these.
#[must_use]
pub fn doubts(path: &Path, text: &str) -> Vec<Doubt> {
    let (resources, errors) = read_file(path, text);
    let sound = resources.iter().filter_map(Doubt::about);
    let mut doubts: Vec<Doubt> = Vec::new();
    for doubt in sound.chain(errors.into_iter().filter_map(|error| error.doubt)) {
        // One object may have many flaws, which stand side by side.
        if doubts.last() != Some(&doubt) {
            doubts.push(doubt);
        }
    }
    doubts
}

// A star is how everything is written, and YAML's own sign for a reference; files are joined without their parting lines.
fn mend(what: &str) -> &'static str {
    if what.contains("alias") {
        return "a value that begins with * or & must stand in quotes, such as \"*\"";
    }
    if what.contains("duplicate mapping key: apiVersion") {
        return "part two documents by a line ---";
    }
    "mend the line, or the one above it; the file may be half written"
}

struct File {
    path: Arc<Path>,
}

impl File {
    // A document without content (before the first `---`, or after the last) is none.
    fn read(&self, part: yaml::Part<'_>, work: &mut Work) -> Result<Vec<Resource>, Vec<ResourceError>> {
        let node = yaml::parse(part, work).map_err(|error| {
            vec![ResourceError {
                location: self.line(error.line),
                subject: None,
                what: format!("this is no valid YAML: {}", error.what),
                mend: mend(&error.what).to_owned(),
                cause: Cause::Syntax,
                doubt: doubt::of_text(part, &error, work),
            }]
        })?;
        if matches!(node.value, Value::Null) {
            return Ok(Vec::new());
        }
        let readings = match items(&node) {
            Some(items) => items.iter().map(|item| self.reading(item)).collect(),
            None => vec![self.reading(&node)],
        };
        let (mut resources, mut flaws) = (Vec::new(), Vec::new());
        for reading in readings {
            resources.extend(reading.resource);
            flaws.extend(reading.flaws);
        }
        if flaws.is_empty() { Ok(resources) } else { Err(flaws) }
    }

    fn reading(&self, node: &Node) -> Reading {
        let flaws = Flaws::default();
        let read = read_document(node, &flaws);
        let error = |flaw: Flaw| ResourceError {
            location: self.line(flaw.line),
            subject: doubt::subject(node),
            what: flaw.what,
            mend: flaw.mend,
            cause: flaw.cause,
            doubt: doubt::of_node(node),
        };
        Reading {
            resource: read.map(|(metadata, kind)| Resource {
                location: self.line(node.line),
                metadata,
                kind,
            }),
            flaws: flaws.into_flaws().into_iter().map(error).collect(),
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

    fn unread(&self, part: yaml::Part<'_>) -> ResourceError {
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

// The objects of a `List`, as `kubectl get -o yaml` writes one.
fn items(node: &Node) -> Option<&[Node]> {
    let is_list = node.get("apiVersion").and_then(Node::text) == Some("v1")
        && node.get("kind").and_then(Node::text) == Some("List");
    let Value::Map(entries) = &node.value else { return None };
    let has_more =
        entries.iter().any(|entry| !matches!(&*entry.key, "apiVersion" | "kind" | "metadata" | "items"));
    match &node.get("items")?.value {
        Value::List(items) if is_list && !has_more => Some(items),
        _ => None,
    }
}

// `None` where there is nothing that could be enforced; then there are flaws.
fn read_document(node: &Node, flaws: &Flaws) -> Option<(Metadata, Kind)> {
    let law = |read: fn(&Cursor<'_>, &Metadata, &Flaws) -> Kind| law(node, flaws, read);
    let kept = |read| flaws.kept(read);
    let Head { version: written, kind, kind_at } = flaws.kept(Head::read(node))?;
    let (group, version) = written.rsplit_once('/').unwrap_or(("", &written));
    match (group, version, kind.as_str()) {
        ("", "v1", "Namespace") => kept(plain(node, |_| Ok(Kind::Namespace)).map(|(mut metadata, kind)| {
            metadata.namespace.clear();
            (metadata, kind)
        })),
        ("", "v1", "ServiceAccount") => kept(plain(node, |_| Ok(Kind::ServiceAccount))),
        ("", "v1", "Pod") => kept(plain(node, |fields| Ok(Kind::Pod(Pod::read(fields)?.into())))),
        ("", "v1", "Service") => kept(plain(node, |fields| Ok(Kind::Service(Service::read(fields)?)))),
        ("apps", "v1", "Deployment") => {
            kept(plain(node, |fields| Ok(Kind::Deployment(Deployment::read(fields)?.into()))))
        }
        ("discovery.k8s.io", "v1", "EndpointSlice") => {
            kept(plain(node, |fields| Ok(Kind::EndpointSlice(EndpointSlice::read(fields)?))))
        }
        ("networking.istio.io", "v1" | "v1beta1" | "v1alpha3", "ServiceEntry") => {
            kept(foreign(node, |document, _| Ok(Kind::ServiceEntry(ServiceEntry::read(document)?))))
        }
        ("networking.istio.io", "v1" | "v1beta1" | "v1alpha3", "WorkloadEntry") => {
            kept(foreign(node, |document, metadata| {
                let (entry, labels) = WorkloadEntry::read(document)?;
                metadata.labels.extend(labels);
                Ok(Kind::WorkloadEntry(entry))
            }))
        }
        ("security.istio.io", "v1" | "v1beta1", "AuthorizationPolicy") => law(|spec, metadata, flaws| {
            Kind::AuthorizationPolicy(AuthorizationPolicy::read(spec, metadata, flaws))
        }),
        ("security.istio.io", "v1" | "v1beta1", "PeerAuthentication") => law(|spec, metadata, flaws| {
            Kind::PeerAuthentication(PeerAuthentication::read(spec, metadata, flaws))
        }),
        ("security.istio.io", "v1" | "v1beta1", "RequestAuthentication") => law(|spec, metadata, flaws| {
            Kind::RequestAuthentication(RequestAuthentication::read(spec, metadata, flaws))
        }),
        _ => {
            let what = format!("{} {} is not implemented", bounded(&written), bounded(&kind));
            flaws.add("", kind_at.unsupported(what, "remove the document; known: Namespace, ServiceAccount, Pod, Deployment, Service, EndpointSlice, ServiceEntry, WorkloadEntry, AuthorizationPolicy, PeerAuthentication, RequestAuthentication"));
            None
        }
    }
}

struct Head<'a> {
    version: String,
    kind: String,
    kind_at: Cursor<'a>,
}

impl<'a> Head<'a> {
    fn read(node: &'a Node) -> Result<Self, Flaw> {
        let document = Cursor::root(node, Manner::Strict).fields()?;
        let (version_at, kind_at) = (document.required("apiVersion")?, document.required("kind")?);
        Ok(Self { version: version_at.text()?, kind: kind_at.text()?, kind_at })
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

// Istio's: each field counts.
fn foreign(
    node: &Node,
    read: impl FnOnce(&Fields<'_>, &mut Metadata) -> Result<Kind, Flaw>,
) -> Result<(Metadata, Kind), Flaw> {
    let document = Cursor::root(node, Manner::Strict).fields()?;
    document.pass_over(&["apiVersion", "kind", "status"]);
    let mut metadata = Metadata::read(&document.required("metadata")?)?;
    let kind = read(&document, &mut metadata)?;
    document.end()?;
    Ok((metadata, kind))
}

// The kinds of the law: each field counts, and what is sound is kept beside what is not.
fn law(
    node: &Node,
    flaws: &Flaws,
    read: impl FnOnce(&Cursor<'_>, &Metadata, &Flaws) -> Kind,
) -> Option<(Metadata, Kind)> {
    let document = Part::open(&Cursor::root(node, Manner::Strict), flaws);
    document.pass_over(&["apiVersion", "kind", "status"]);
    let metadata = document.required("metadata").and_then(|at| Metadata::read_law(&at, flaws));
    let spec = document.required("spec");
    let metadata = metadata?;
    let nothing = Node { line: node.line, value: Value::Null };
    let mut kind = match &spec {
        Some(spec) => read(spec, &metadata, flaws),
        // The file may be half written; what is missing was said already.
        None => read(&Cursor::root(&nothing, Manner::Strict), &metadata, &Flaws::default()),
    };
    let strangers = document.end();
    if !strangers.is_empty() {
        kind.doubt(strangers);
    }
    Some((metadata, kind))
}
