//! `douane inject` and `douane uninject`: sidecars into files of manifests, and out of them.
//!
//! Knows flags, streams and exit codes; what is done to a pod is `crate::inject`'s.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use super::print::{print_text, remark};
use crate::{
    config::{Config, Order},
    inject::{Done, Fate, Task, Terms, Told, Tree, join, rewrite, unified},
    policy::input,
};

/// Charts of large systems have some MiB.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Something was refused.
const REFUSED: u8 = 1;
/// A file cannot be read.
const UNREADABLE: u8 = 2;

#[derive(Args)]
pub(super) struct Inject {
    #[command(flatten)]
    files: Files,
    /// The namespace of objects that say none.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The control plane's configuration (as `douane ca --config`): its `injection` says what pods get.
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    /// The sidecar's image.
    #[arg(long)]
    image: Option<String>,
    /// In which order containers start: `native` (Kubernetes 1.29 and later) or `classic`.
    #[arg(long, value_enum)]
    order: Option<Sequence>,
    /// Say each change and what for, instead of writing manifests.
    #[arg(long, conflicts_with_all = ["diff", "output"])]
    explain: bool,
}

#[derive(Args)]
pub(super) struct Uninject {
    #[command(flatten)]
    files: Files,
}

#[derive(Args)]
struct Files {
    /// A file, or a folder of *.yaml, *.yml and *.json; - is the standard input. Repeatable.
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE|FOLDER|-")]
    paths: Vec<PathBuf>,
    /// How objects are written.
    #[arg(short, long, value_enum, default_value = "yaml")]
    output: Output,
    /// Show what changes, instead of writing manifests.
    #[arg(long, conflicts_with = "output")]
    diff: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// As YAML. Documents that nothing happens to stay byte for byte.
    Yaml,
    /// As one JSON object; several are a List.
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Sequence {
    Native,
    Classic,
}

pub(super) const HELP: &str = "\
The same code as the admission webhook's, so that what is written is what a cluster would make. Of documents that are \
written anew, comments inside are lost, and the order stays. Injecting twice is injecting once: a pod that has our \
sidecar is brought up to the settings of now. What became of each object is said on the standard error.

  douane inject -f shop.yaml | kubectl apply -f -     one file, of one or many documents
  helm template chart/ | douane inject -f -           the standard input
  douane inject -f manifests/ --explain               each change, and what for
  douane inject -f shop.yaml --diff                   the same as a unified diff
  douane inject -f shop.yaml | douane uninject -f -   and back

Passed over: pods of the host's network, of kube-system and our own namespace, on Windows, with the sidecar of another \
mesh, or with douane.io/inject: disabled.

Exit codes: 0 done, 1 a pod was refused (nothing is written then), 2 a file cannot be read.";

/// Puts sidecars in.
pub(super) fn inject(asked: &Inject) -> Result<ExitCode> {
    let terms = asked.terms()?;
    let explained = if asked.explain { Explained::Changes } else { Explained::Objects };
    run(&asked.files, Task::Inject { terms: &terms, namespace: &asked.namespace }, explained)
}

/// Takes them out.
pub(super) fn uninject(asked: &Uninject) -> Result<ExitCode> {
    run(&asked.files, Task::Uninject, Explained::Objects)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Explained {
    Objects,
    Changes,
}

impl Inject {
    fn terms(&self) -> Result<Terms> {
        let mut config = match &self.mesh_config {
            Some(path) => {
                let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
                Config::parse(&text).with_context(|| path.display().to_string())?
            }
            None => Config::default(),
        };
        if let Some(image) = &self.image {
            config.injection.image.clone_from(image);
        }
        if let Some(order) = self.order {
            config.injection.order = match order {
                Sequence::Native => Order::Native,
                Sequence::Classic => Order::Classic,
            };
        }
        Ok(Terms::of(&config))
    }
}

fn run(asked: &Files, task: Task<'_>, explained: Explained) -> Result<ExitCode> {
    let mut all: Vec<(PathBuf, Done)> = Vec::new();
    for path in &asked.paths {
        match read(path, task) {
            Ok(done) => all.extend(done),
            Err(error) => {
                remark(&format!("douane: {error:#}"));
                return Ok(ExitCode::from(UNREADABLE));
            }
        }
    }
    if explained == Explained::Objects {
        for (path, told) in told(&all) {
            remark(&line(path, told));
        }
    }
    if all.iter().any(|(_, done)| done.is_refused()) {
        if explained == Explained::Changes {
            print_text(&explanation(&all))?;
        }
        return Ok(ExitCode::from(REFUSED));
    }
    let text = match (explained, asked.diff, asked.output) {
        (Explained::Changes, ..) => explanation(&all),
        (Explained::Objects, true, _) => differences(&all),
        (Explained::Objects, false, Output::Yaml) => manifests(&all),
        (Explained::Objects, false, Output::Json) => objects(all)?,
    };
    print_text(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path, task: Task<'_>) -> Result<Vec<(PathBuf, Done)>> {
    let mut all = Vec::new();
    for file in files(path)? {
        let text = input::read_text(&file, MAX_BYTES).with_context(|| format!("read {}", file.display()))?;
        let done = rewrite(&text, task)
            .map_err(|error| anyhow::anyhow!("{}:{}: {}", file.display(), error.line, error.what))?;
        all.push((file, done));
    }
    Ok(all)
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if input::is_stdin(path) || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("read {}", path.display()))? {
        let file = entry?.path();
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let extension = file.extension().and_then(|it| it.to_str()).unwrap_or_default();
        if !name.starts_with('.') && ["yaml", "yml", "json"].contains(&extension) && !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        bail!("{} holds no *.yaml, *.yml or *.json", path.display());
    }
    Ok(files)
}

fn told(all: &[(PathBuf, Done)]) -> impl Iterator<Item = (&Path, &Told)> {
    all.iter().flat_map(|(path, done)| done.told.iter().map(|told| (path.as_path(), told)))
}

fn line(path: &Path, told: &Told) -> String {
    let place = format!("{}:{}: {}", path.display(), told.line, told.subject);
    match &told.fate {
        Fate::Injected(_, warnings) => {
            let mut text = format!("{place}: injected");
            for warning in warnings {
                text.push_str(&format!("\n{place}: warning: {warning}"));
            }
            text
        }
        Fate::Unchanged => format!("{place}: it has its sidecar already"),
        Fate::Uninjected => format!("{place}: uninjected"),
        Fate::Skipped(why) => format!("{place}: skipped: {why}"),
        Fate::Refused(why) => format!("{place}: refused: {why}"),
    }
}

fn explanation(all: &[(PathBuf, Done)]) -> String {
    let mut text = String::new();
    for (path, told) in told(all) {
        text.push_str(&line(path, told));
        text.push('\n');
        if let Fate::Injected(changes, _) = &told.fate {
            for change in changes {
                text.push_str(&format!("  {}\n      {}\n", change.what, change.why));
            }
        }
    }
    text
}

fn differences(all: &[(PathBuf, Done)]) -> String {
    let mut text = String::new();
    for (path, done) in all {
        let name = path.display().to_string();
        for document in &done.documents {
            let (Some(plain), Some(object)) = (&document.plain, &document.object) else { continue };
            text.push_str(&unified(plain, &crate::inject::yaml(object), &name));
        }
    }
    text
}

fn manifests(all: &[(PathBuf, Done)]) -> String {
    let mut text = String::new();
    for (_, done) in all {
        join(&mut text, &done.text());
    }
    text
}

fn objects(all: Vec<(PathBuf, Done)>) -> Result<String> {
    let documents = all.into_iter().flat_map(|(_, done)| done.documents);
    let mut objects: Vec<Tree> = documents.filter_map(|document| document.object).collect();
    let one = if objects.len() == 1 { objects.pop() } else { None };
    let one = one.unwrap_or_else(|| {
        Tree::map([("apiVersion", Tree::from("v1")), ("kind", "List".into()), ("items", Tree::List(objects))])
    });
    let text = serde_json::to_string_pretty(&one).context("write JSON")?;
    Ok(format!("{text}\n"))
}
