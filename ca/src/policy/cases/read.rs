//! From the text of a case file to its cases. A case that is written wrongly is reported, the others are read.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use douane_proto::{
    id::TrustDomain,
    law::{LawSettings, govern},
    mtls::MtlsMode,
    policy::{HttpCheck, Provider, ProviderProtocol},
    resource::Resource,
    target::PathNormalization,
    yaml::{self, Node, Value, Work, bounded},
};

use super::{
    case::{Case, CaseFile, Unreadable},
    fields::{Fields, list, scalar, text, wrong},
    request,
};
use crate::policy::{
    asked::{Mesh, Protocol, Workload},
    input::read_text,
    issuer::{Issuer, IssuerError},
    laws::{Laws, Origin},
    wrong::Wrong,
};

/// Several hundred cases with their policies have about half a MiB.
pub(crate) const MAX_FILE_BYTES: u64 = 8 * 1024 * 1024;
/// About as many as a file of that size has.
const MAX_NODES: usize = 2_000_000;
/// Stands for the key set of the run's own issuer in a policy.
const KEY_SET: &str = "$TEST_JWKS";

/// Why a case file cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there, or not readable.
    #[error("{path}: {why}", path = .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// It is no list of cases.
    #[error("{path}:{line}: {what}", path = .path.display(), line = .wrong.line, what = .wrong.what)]
    Form {
        /// Which.
        path: PathBuf,
        /// Where and why.
        wrong: Wrong,
    },
    /// No token can be made.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
}

/// Reads a case file. `now`: seconds since 1970, by which the tokens in it are minted.
///
/// # Errors
/// [`FileError`] when it holds no list of cases.
pub fn read(path: &Path, now: u64) -> Result<CaseFile, FileError> {
    let text =
        read_text(path, MAX_FILE_BYTES).map_err(|why| FileError::Read { path: path.to_owned(), why })?;
    parse(path, &text, now)
}

/// Reads the text of a case file; `path` is its name, and where the files stand that it names.
///
/// # Errors
/// [`FileError::Form`] when it is no list of cases.
pub fn parse(path: &Path, text: &str, now: u64) -> Result<CaseFile, FileError> {
    let form = |wrong| FileError::Form { path: path.to_owned(), wrong };
    let reader = Reader { path: path.into(), issuer: Issuer::new(now)? };
    let mut work = Work::of(MAX_NODES);
    let mut cases = Vec::new();
    for part in yaml::split(text) {
        let node = yaml::parse(part, &mut work).map_err(|error| {
            form(Wrong { line: error.line, what: format!("this is no valid YAML: {}", error.what) })
        })?;
        for node in list(&node, "a case file").map_err(form)? {
            cases.push(reader.case(node, cases.len() + 1));
        }
    }
    if cases.is_empty() {
        return Err(form(Wrong { line: 1, what: "the file holds no case; write a list of them".to_owned() }));
    }
    Ok(CaseFile { path: reader.path, cases })
}

struct Reader {
    path: Arc<Path>,
    issuer: Issuer,
}

impl Reader {
    fn case(&self, node: &Node, number: usize) -> Result<Case, Unreadable> {
        let name = node.get("name").and_then(scalar).unwrap_or_else(|| format!("case {number}"));
        self.read(node, name.clone()).map_err(|wrong| {
            let requests = match node.get("requests").map(|node| &node.value) {
                Some(Value::List(items)) => items.iter().map(|item| item.line).collect(),
                _ => Vec::new(),
            };
            Unreadable { name, wrong, requests }
        })
    }

    fn read(&self, node: &Node, name: String) -> Result<Case, Wrong> {
        let fields = Fields::of(node, "a case")?;
        let _read_before = fields.written("name");
        let mesh = fields.get("mesh").map_or_else(|| mesh(&absent()), mesh)?;
        let workload = fields.get("workload").map_or_else(|| workload(&absent()), workload)?;
        let mut laws = Laws::default();
        for policy in fields.list("policies")? {
            self.policy(policy, &mut laws)?;
        }
        for file in fields.list("files")? {
            self.file(file, &mut laws)?;
        }
        let requests = fields.list("requests")?;
        fields.end()?;
        if requests.is_empty() {
            return Err(wrong(node, "the case has no requests; write at least one"));
        }
        let read = |node| request::read(node, &workload, &self.issuer);
        let requests = requests.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let resources: &[Resource] = &laws.resources;
        let governing = govern(resources, &workload.namespace, &workload.labels, &mesh.law);
        let problems = laws.problems;
        Ok(Case { name, line: node.line, mesh, workload, governing, problems, requests })
    }

    // An object, or a text of YAML documents.
    fn policy(&self, node: &Node, laws: &mut Laws) -> Result<(), Wrong> {
        let origin = Origin { path: Arc::clone(&self.path) };
        match &node.value {
            Value::Text(text) => {
                for document in documents(text).map_err(|error| {
                    // Its lines are counted within the text.
                    wrong(
                        node,
                        format!("the policy is no valid YAML at its line {}: {}", error.line, error.what),
                    )
                })? {
                    let mut document = document;
                    relocate(&mut document, node.line.saturating_sub(1));
                    self.object(document, &origin, laws)?;
                }
                Ok(())
            }
            _ => self.object(node.clone(), &origin, laws),
        }
    }

    fn object(&self, mut node: Node, origin: &Origin, laws: &mut Laws) -> Result<(), Wrong> {
        replace(&mut node, KEY_SET, self.issuer.key_set());
        laws.read(&node, origin)
    }

    fn file(&self, node: &Node, laws: &mut Laws) -> Result<(), Wrong> {
        let name = text(node, "a file")?;
        let path = self.path.parent().unwrap_or(Path::new("")).join(&name);
        let cannot = |what: String| wrong(node, format!("file {:?}: {what}", bounded(&name)));
        let text = read_text(&path, MAX_FILE_BYTES).map_err(|error| cannot(error.to_string()))?;
        let found = documents(&text).map_err(|error| {
            cannot(format!("{}:{}: this is no valid YAML: {}", path.display(), error.line, error.what))
        })?;
        let origin = Origin { path: path.as_path().into() };
        for document in found {
            self.object(document, &origin, laws)
                .map_err(|found| cannot(format!("{}:{}: {}", path.display(), found.line, found.what)))?;
        }
        Ok(())
    }
}

fn absent() -> Node {
    Node { line: 0, value: Value::Null }
}

fn documents(text: &str) -> Result<Vec<Node>, yaml::SyntaxError> {
    let mut work = Work::of(MAX_NODES);
    let nodes = yaml::split(text).into_iter().map(|part| yaml::parse(part, &mut work));
    let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
    Ok(nodes.into_iter().filter(|node| !matches!(node.value, Value::Null)).collect())
}

// In the tree, not in the text: so no quoting can break it.
fn replace(node: &mut Node, word: &str, with: &str) {
    match &mut node.value {
        Value::Text(text) if text.contains(word) => *text = text.replace(word, with),
        Value::List(items) => items.iter_mut().for_each(|item| replace(item, word, with)),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| replace(&mut entry.node, word, with)),
        _ => {}
    }
}

// The first line of a text is the line that its node says.
fn relocate(node: &mut Node, line: u32) {
    node.line = node.line.saturating_add(line);
    match &mut node.value {
        Value::List(items) => items.iter_mut().for_each(|item| relocate(item, line)),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| {
            entry.line = entry.line.saturating_add(line);
            relocate(&mut entry.node, line);
        }),
        _ => {}
    }
}

fn mesh(node: &Node) -> Result<Mesh, Wrong> {
    let fields = Fields::of(node, "mesh")?;
    let trust_domain = match fields.get("trust_domain") {
        Some(node) => domain(node)?,
        None => domain(&Node { value: Value::Text("cluster.local".to_owned()), ..absent() })?,
    };
    let aliases = fields.list("trust_domain_aliases")?.iter().map(domain).collect::<Result<_, _>>()?;
    let root_namespace = fields.text_or("root_namespace", "istio-system")?;
    let normalizations = [
        ("NONE", PathNormalization::None),
        ("BASE", PathNormalization::Base),
        ("DEFAULT", PathNormalization::Base),
        ("MERGE_SLASHES", PathNormalization::MergeSlashes),
        ("DECODE_AND_MERGE_SLASHES", PathNormalization::DecodeAndMergeSlashes),
    ];
    let normalization = fields.choice("path_normalization", &normalizations)?.unwrap_or_default();
    let modes = [
        ("STRICT", MtlsMode::Strict),
        ("PERMISSIVE", MtlsMode::Permissive),
        ("DISABLE", MtlsMode::Disable),
        ("UNSET", MtlsMode::default()),
    ];
    let mtls = fields.choice("mtls_mode", &modes)?.unwrap_or_default();
    let providers = fields.list("extension_providers")?.iter().map(provider).collect::<Result<_, _>>()?;
    fields.end()?;
    Ok(Mesh { trust_domain, aliases, normalization, law: LawSettings { root_namespace, mtls, providers } })
}

fn domain(node: &Node) -> Result<TrustDomain, Wrong> {
    let text = text(node, "a trust domain")?;
    TrustDomain::parse(&text).map_err(|error| wrong(node, error.to_string()))
}

// Where it listens is of no interest: the case says what it answers.
fn provider(node: &Node) -> Result<Provider, Wrong> {
    let fields = Fields::of(node, "an extension provider")?;
    let name = fields.text("name")?.ok_or_else(|| wrong(node, "an extension provider must have a name"))?;
    let http = ProviderProtocol::Http(HttpCheck::default());
    let protocols = [("grpc", &ProviderProtocol::Grpc), ("http", &http)];
    let protocol = fields.choice("type", &protocols)?.unwrap_or(&ProviderProtocol::Grpc).clone();
    let truths = [("true", true), ("false", false)];
    // As the mesh configuration writes it, too.
    let is_open =
        fields.choice("fail_open", &truths)?.or(fields.choice("failOpen", &truths)?).unwrap_or_default();
    for place in ["host", "service", "port", "timeout"] {
        let _of_no_interest = fields.written(place);
    }
    fields.end()?;
    Ok(Provider { fail_open: is_open, ..Provider::new(&name, protocol, "ext-authz.invalid", 9000) })
}

fn workload(node: &Node) -> Result<Workload, Wrong> {
    let fields = Fields::of(node, "workload")?;
    let labels = fields.get("labels").map_or_else(|| Ok(BTreeMap::new()), labels)?;
    let protocols = [
        ("http", Protocol::Http),
        ("http1", Protocol::Http),
        ("http2", Protocol::Http),
        ("grpc", Protocol::Grpc),
        ("tcp", Protocol::Tcp),
    ];
    let workload = Workload {
        namespace: fields.text_or("namespace", "default")?,
        labels,
        service_account: fields.text_or("service_account", "default")?,
        port: fields.parsed("port", "port from 0 to 65535")?.unwrap_or(8080),
        protocol: fields.choice("protocol", &protocols)?.unwrap_or(Protocol::Http),
    };
    let _free = fields.written("name");
    fields.end()?;
    Ok(workload)
}

fn labels(node: &Node) -> Result<BTreeMap<String, String>, Wrong> {
    let Value::Map(entries) = &node.value else {
        return Err(wrong(node, format!("labels must be a map, but is {}", node.value.name())));
    };
    entries.iter().map(|entry| Ok((entry.key.clone(), text(&entry.node, "a label")?))).collect()
}
