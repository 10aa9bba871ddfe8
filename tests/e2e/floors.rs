//! The floors of the house: who may import whom. Reads the sources as text, so that a rule that is written down in
//! the README and in each `lib.rs` stays true.
//!
//! Knows only paths: `crate::room::…`, `super::…` and `douane_…` in what is not a comment.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Rooms of one crate from the top floor down. A room may import rooms of lower floors and itself.
struct House {
    folder: &'static str,
    floors: &'static [&'static [&'static str]],
    /// Other crates of ours that it may import.
    neighbours: &'static [&'static str],
}

const HOUSES: &[House] = &[
    House {
        folder: "proto",
        floors: &[&[
            "authentication",
            "bundle",
            "facts",
            "features",
            "figures",
            "hint",
            "id",
            "jwt",
            "law",
            "mesh",
            "mtls",
            "policy",
            "request",
            "resource",
            "snapshot",
            "svid",
            "target",
            "wire",
            "yaml",
        ]],
        neighbours: &[],
    },
    House {
        folder: "ca",
        floors: &[
            &["main"],
            &["cli"],
            &["app"],
            &["check", "status", "webhook"],
            &["admin", "install", "issue", "istio", "inject", "policy", "rpc", "tls", "upstream"],
            &["office"],
            &["attest", "authority", "discovery"],
            &["audit", "federation", "jwks"],
            &["fetch", "kubernetes", "traffic"],
            &["budget", "config", "hex", "holders", "metrics", "peer", "state"],
        ],
        neighbours: &["douane_proto"],
    },
    House {
        folder: "proxy",
        floors: &[
            &["main"],
            &["cli"],
            &["app"],
            &["inbound", "outbound", "admin", "workload"],
            // What both directions of HTTP share: bodies, headers, records, plaintext legs.
            &["exchange"],
            &["authz", "identity", "discovery", "telemetry"],
            // Below the rest of its floor in the first drawing: identity and discovery dial through `net`.
            &["net"],
            // Numbers and holders; sockets and requests are the business of those above.
            &["limits"],
            &["tls", "redirect", "config", "backoff", "refusal", "shutdown"],
            // What everybody holds counts in one place.
            &["budget"],
        ],
        neighbours: &["douane_proto"],
    },
    House {
        folder: "examples",
        floors: &[&["bin"], &["cli"], &["demo"], &["lab"], &["apps"]],
        neighbours: &["douane_proto", "douane_ca", "douane_proxy"],
    },
];

/// Third-party crates that live in few rooms: (our crate, the guest, where it may be named).
const GUESTS: &[(&str, &str, &[&str])] = &[
    ("proxy", "rustls", &["tls"]),
    ("proxy", "rcgen", &["identity", "tls"]),
    ("proxy", "spiffe", &["identity"]),
    ("proxy", "clap", &["cli"]),
    ("proxy", "opentelemetry", &["telemetry"]),
    ("proxy", "opentelemetry_otlp", &["telemetry"]),
    ("proxy", "netlink_packet_netfilter", &["redirect"]),
    ("ca", "rustls", &["tls"]),
    ("ca", "x509_parser", &["authority"]),
    ("ca", "rcgen", &["authority"]),
    ("ca", "clap", &["cli"]),
    ("ca", "kube", KUBERNETES),
    ("ca", "k8s_openapi", KUBERNETES),
    ("proto", "x509_parser", &["bundle", "svid"]),
    ("proto", "serde_saphyr", &["yaml"]),
];

/// Within them, in files or folders of that name only.
const KUBERNETES: &[&str] =
    &["attest", "authority", "check", "discovery", "inject", "kubernetes", "status", "upstream"];

/// A file that grows past this has probably taken in a second purpose (100 to 400 are usual).
const MOST_LINES: usize = 500;

#[test]
fn a_room_imports_only_what_stands_below_it() {
    let mut wrong = Vec::new();
    for house in HOUSES {
        for file in house.files() {
            for import in file.crate_imports() {
                let (Some(from), Some(to)) = (house.floor(&file.room), house.floor(&import)) else {
                    wrong.push(format!("{} imports {import}: not in the plan of floors", file.name));
                    continue;
                };
                // On one floor rooms do not see each other, but for the flat contract.
                if to < from || (to == from && import != file.room && house.floors.len() > 1) {
                    wrong.push(format!("{} ({}) imports {import}: not below it", file.name, file.room));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn crates_meet_on_the_wire_only() {
    let mut wrong = Vec::new();
    for house in HOUSES {
        for file in house.files() {
            for named in file.words_with_prefix("douane_") {
                let own = format!("douane_{}", house.folder);
                let is_crate =
                    ["douane_proto", "douane_ca", "douane_proxy", "douane_examples", "douane_tests"];
                let allowed = named == own || house.neighbours.contains(&named.as_str());
                if is_crate.contains(&named.as_str()) && !allowed {
                    wrong.push(format!("{} imports {named}", file.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn applications_know_nothing_of_the_mesh() {
    for house in HOUSES.iter().filter(|house| house.folder == "examples") {
        for file in house.files().iter().filter(|file| file.room == "apps") {
            let named = file.words_with_prefix("douane_");
            assert!(named.is_empty(), "{} names {named:?}", file.name);
            assert_eq!(file.crate_imports(), file.crate_imports_of("apps"), "{} leaves its room", file.name);
        }
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    for house in HOUSES {
        let files = house.files();
        let names: BTreeSet<String> = files.iter().map(|file| file.module.clone()).collect();
        let edges: BTreeMap<String, BTreeSet<String>> =
            files.iter().map(|file| (file.module.clone(), file.module_imports(&names))).collect();
        for start in &names {
            if let Some(circle) = way_back(start, &edges) {
                panic!("a circle in {}: {}", house.folder, circle.join(" -> "));
            }
        }
    }
}

#[test]
fn a_guest_stays_in_its_rooms() {
    let mut wrong = Vec::new();
    for (folder, guest, rooms) in GUESTS {
        for house in HOUSES.iter().filter(|house| house.folder == *folder) {
            for file in house.files() {
                let named = file.code.contains(&format!("{guest}::"));
                // `tokio_rustls::rustls` and the like are words of their own.
                let whole = file.words_with_prefix(guest).contains(*guest);
                if named && whole && !rooms.contains(&file.room.as_str()) {
                    wrong.push(format!("{} names {guest}, which lives in {rooms:?}", file.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn kubernetes_is_spoken_only_where_the_name_says_so() {
    let house = HOUSES.iter().find(|house| house.folder == "ca").expect("the control plane is a house");
    for file in house.files() {
        let speaks = ["kube", "k8s_openapi"].iter().any(|guest| {
            file.code.contains(&format!("{guest}::")) && file.words_with_prefix(guest).contains(*guest)
        });
        assert!(!speaks || file.module.split("::").any(|part| part == "kubernetes"), "{}", file.name);
    }
}

#[test]
fn every_file_says_what_it_is_for_and_has_one_purpose() {
    let mut wrong = Vec::new();
    for house in HOUSES {
        for file in house.files() {
            if !file.text.starts_with("//!") {
                wrong.push(format!("{} does not open with //!", file.name));
            }
            let lines = file.text.lines().count();
            if lines > MOST_LINES {
                wrong.push(format!("{} has {lines} lines", file.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

struct File {
    /// For messages: `proxy/src/tls/mod.rs`.
    name: String,
    /// The top room: `tls`.
    room: String,
    /// `tls::verify`; a door (`mod.rs`) is `tls`.
    module: String,
    text: String,
    /// The text without comments and without its tests.
    code: String,
}

impl House {
    fn files(&self) -> Vec<File> {
        let source = workspace().join(self.folder).join("src");
        let mut paths = Vec::new();
        collect(&source, &mut paths);
        paths.sort();
        paths.iter().filter_map(|path| File::read(self.folder, &source, path)).collect()
    }

    fn floor(&self, room: &str) -> Option<usize> {
        self.floors.iter().position(|floor| floor.contains(&room))
    }
}

impl File {
    fn read(folder: &str, source: &Path, path: &Path) -> Option<Self> {
        let relative = path.strip_prefix(source).expect("it was found below").to_str().expect("UTF-8");
        // The map of a crate names every room; generated code is nobody's.
        if relative == "lib.rs" || relative.contains("gen/") || relative.starts_with("bin/") {
            return None;
        }
        let text = fs::read_to_string(path).expect("a source file is readable");
        let module = relative.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
        let room = module.split("::").next().unwrap_or_default().to_owned();
        let code = text
            .lines()
            .take_while(|line| !line.starts_with("#[cfg(test)]"))
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect::<Vec<_>>()
            .join("\n");
        Some(Self { name: format!("{folder}/src/{relative}"), room, module, text, code })
    }

    /// Rooms named as `crate::room` or inside `use crate::{room::…, …}`.
    fn crate_imports(&self) -> BTreeSet<String> {
        self.crate_paths().iter().filter_map(|path| path.split("::").next()).map(str::to_owned).collect()
    }

    fn crate_imports_of(&self, room: &str) -> BTreeSet<String> {
        self.crate_imports().into_iter().filter(|import| import == room).collect()
    }

    /// Every path below `crate::`, groups flattened.
    fn crate_paths(&self) -> BTreeSet<String> {
        self.code.split("crate::").skip(1).flat_map(|rest| flatten(rest, "")).collect()
    }

    /// Modules of this crate that it names, by `crate::` or `super::`.
    fn module_imports(&self, names: &BTreeSet<String>) -> BTreeSet<String> {
        let parent = self.module.rsplit_once("::").map_or("", |(parent, _)| parent);
        let near = self.code.split("super::").skip(1).flat_map(|rest| flatten(rest, parent));
        let mut found = BTreeSet::new();
        for path in self.crate_paths().into_iter().chain(near) {
            let mut path = path.as_str();
            while !path.is_empty() {
                if names.contains(path) {
                    found.insert(path.to_owned());
                    break;
                }
                path = path.rsplit_once("::").map_or("", |(parent, _)| parent);
            }
        }
        found.remove(&self.module);
        found
    }

    fn words_with_prefix(&self, prefix: &str) -> BTreeSet<String> {
        let words = self.code.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.filter(|word| word.starts_with(prefix)).map(str::to_owned).collect()
    }
}

/// `a::{b, c::d}` below `base` becomes its plain paths.
fn flatten(text: &str, base: &str) -> Vec<String> {
    let join = |path: &str| {
        let path = path.trim_matches(':');
        match (base, path) {
            ("", only) | (only, "") => only.to_owned(),
            (base, path) => format!("{base}::{path}"),
        }
    };
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').unwrap_or(text.len());
    let (path, rest) = text.split_at(end);
    let Some(group) = rest.strip_prefix('{').filter(|_| path.is_empty() || path.ends_with("::")) else {
        return vec![join(path)];
    };
    let base = join(path);
    let (mut depth, mut start, mut paths) = (0usize, 0usize, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                let item = group[start..at].trim();
                if !item.is_empty() && item != "self" {
                    paths.extend(flatten(item, &base));
                }
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    paths
}

fn way_back(start: &str, edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut open = vec![vec![start.to_owned()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = open.pop() {
        let last = way.last().expect("a way begins somewhere");
        for next in edges.get(last).into_iter().flatten() {
            let longer = way.iter().cloned().chain([next.clone()]).collect();
            if next == start {
                return Some(longer);
            }
            if seen.insert(next.clone()) {
                open.push(longer);
            }
        }
    }
    None
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests live in the workspace").to_owned()
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a source folder is readable") {
        let path = entry.expect("a folder's entry is readable").path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn groups_of_imports_are_flattened() {
    let paths = flatten("{a::b, c::{d, e::F}, g}", "");
    assert_eq!(paths, ["a::b", "c::d", "c::e::F", "g"]);
    assert_eq!(
        flatten("snapshot::{Found, Question};", "proto"),
        ["proto::snapshot::Found", "proto::snapshot::Question"]
    );
    assert_eq!(flatten("tls::Mtls) -> ", ""), ["tls::Mtls"]);
    assert_eq!(
        flatten("{explain, set::PolicySet};", "policy"),
        ["policy::explain", "policy::set::PolicySet"]
    );
}
