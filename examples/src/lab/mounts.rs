//! A pod's own view of the file system: its names, its /run, and the lab's programs in its PATH.
//!
//! Each function works in the mount namespace of the thread that calls it, which must be the pod's own.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use crate::lab::roles::PROGRAMS;

/// Where a pod finds the programs that this binary plays.
pub const PROGRAMS_DIR: &str = "/run/lab/bin";
/// This binary's own path inside a pod.
pub const LAB_PROGRAM: &str = "/run/lab/bin/lab";
/// Where a sidecar finds its token and the bundle that it trusts on first contact.
pub const SECRETS: &str = "/run/secrets/douane";

/// Where a sidecar has its sockets.
pub const SIDECAR_DIR: &str = "/run/douane";

/// Where a pod's applications find the socket of the SPIFFE Workload API: unlike [`SIDECAR_DIR`] they see it.
pub const WORKLOAD_DIR: &str = "/run/spiffe";
/// The socket itself.
pub const WORKLOAD_SOCKET: &str = "/run/spiffe/workload.sock";

/// A pod's files in the lab's own folder.
#[derive(Debug, Clone)]
pub struct PodFiles {
    folder: PathBuf,
}

impl PodFiles {
    /// Makes them.
    ///
    /// # Errors
    /// As the file system says.
    pub fn make(folder: PathBuf, hosts: &str) -> Result<Self> {
        let files = Self { folder };
        for folder in [files.run(), files.secrets()] {
            fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
            fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
        }
        // Names are only in the hosts file: without a server to ask, a look-up of another name fails at once.
        for (name, content) in [("hosts", hosts), ("nsswitch.conf", NSSWITCH), ("resolv.conf", RESOLV)] {
            fs::write(files.folder.join(name), content)?;
            fs::set_permissions(files.folder.join(name), Permissions::from_mode(0o644))?;
        }
        Ok(files)
    }

    /// The folder that the pod sees as [`SECRETS`].
    #[must_use]
    pub fn secrets(&self) -> PathBuf {
        self.folder.join("secrets")
    }

    /// Rewrites the pod's hosts file in place, since the pod has mounted this very file: by one write, and never
    /// shorter than it was, so that whoever looks a name up meanwhile reads no empty or half file.
    ///
    /// # Errors
    /// As the file system says.
    pub fn write_hosts(&self, hosts: &str) -> Result<()> {
        let path = self.folder.join("hosts");
        let before = fs::read_to_string(&path).context("read the pod's hosts file")?;
        if before.trim_end() == hosts.trim_end() {
            return Ok(());
        }
        let padding = "\n".repeat(before.len().saturating_sub(hosts.len()));
        let mut file = File::options().write(true).open(&path).context("open the pod's hosts file")?;
        file.write_all(format!("{hosts}{padding}").as_bytes()).context("write the pod's hosts file")
    }

    fn run(&self) -> PathBuf {
        self.folder.join("run")
    }
}

/// Mounts a pod's view. `program` is this binary; /run/douane and /run/spiffe will belong to `sidecar_uid`; `hidden` is the folder of
/// all labs' files.
///
/// # Errors
/// As the kernel says.
pub fn mount_pod(files: &PodFiles, program: &Path, sidecar_uid: u32, hidden: &Path) -> Result<()> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .context("make the pod's mounts private")?;
    let run = files.run();
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), &run, Some("tmpfs"), flags, Some("mode=755,size=16m"))
        .context("mount the pod's /run")?;
    let inside = |path: &str| under(&run, Path::new(path));

    let (own, shared) = (inside(SIDECAR_DIR), inside(WORKLOAD_DIR));
    for folder in [&own, &shared, &inside(PROGRAMS_DIR), &inside(SECRETS)] {
        fs::create_dir_all(folder)?;
    }
    for folder in [&own, &shared] {
        chown(folder, Some(sidecar_uid), Some(sidecar_uid)).context("hand the sidecar its folders")?;
        fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    }

    let lab = inside(LAB_PROGRAM);
    File::create(&lab)?;
    bind(program, &lab)?;
    for name in PROGRAMS {
        symlink("lab", inside(PROGRAMS_DIR).join(name))?;
    }
    bind(&files.secrets(), &inside(SECRETS))?;
    for name in ["hosts", "resolv.conf", "nsswitch.conf"] {
        mount_name_file(&files.folder.join(name), name, &run)?;
    }
    // Only so that /sys/class/net shows the pod's own links; containers may forbid it.
    let _ = mount(Some("sysfs"), "/sys", Some("sysfs"), flags | MsFlags::MS_NOEXEC, NONE);
    mount(Some(&run), "/run", NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .context("show the pod its /run")?;
    // The labs' own folders hold every pod's token and the authority's key; below /run they are covered already.
    if hidden.exists() {
        let flags = flags | MsFlags::MS_RDONLY;
        mount(Some("tmpfs"), hidden, Some("tmpfs"), flags, Some("size=4k"))
            .context("hide the lab's own files")?;
    }
    Ok(())
}

/// Kernel settings of the pod's network, before its link exists.
pub fn set_sysctls() {
    let settings = [
        // An application without capabilities serves port 80, as in a container.
        ("net/ipv4/ip_unprivileged_port_start", "0"),
        ("net/ipv6/conf/all/disable_ipv6", "0"),
        ("net/ipv6/conf/default/disable_ipv6", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
        // Nobody advertises routes here.
        ("net/ipv6/conf/default/accept_ra", "0"),
    ];
    for (name, value) in settings {
        // Each is a convenience; where one is missing, the step that needs it says so.
        let _ = fs::write(Path::new("/proc/sys").join(name), value);
    }
}

const NONE: Option<&str> = None;
// `files` alone: systemd's and nscd's sockets in /run are hidden, and no DNS server exists.
const NSSWITCH: &str =
    "passwd: files\ngroup: files\nhosts: files\nnetworks: files\nprotocols: files\nservices: files\n";
// For resolvers that do not read nsswitch.conf: nobody listens there, so that they fail at once.
const RESOLV: &str = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";

fn bind(from: &Path, to: &Path) -> Result<()> {
    mount(Some(from), to, NONE, MsFlags::MS_BIND, NONE)
        .with_context(|| format!("bind {} to {}", from.display(), to.display()))
}

/// Mounts `file` as `/etc/<name>`, which may be a symbolic link into /run.
fn mount_name_file(file: &Path, name: &str, run: &Path) -> Result<()> {
    let mut target = Path::new("/etc").join(name);
    // As deep as the kernel follows links.
    for _ in 0..40 {
        match fs::read_link(&target) {
            Ok(link) => target = normal(&target.parent().unwrap_or(Path::new("/")).join(link)),
            Err(_) => break,
        }
    }
    if target.starts_with("/run") || target.starts_with("/var/run") {
        let target = under(run, &target);
        fs::create_dir_all(target.parent().unwrap_or(run))?;
        File::create(&target)?;
        return bind(file, &target);
    }
    match target.try_exists() {
        Ok(true) => bind(file, &target),
        // A host without such a file: its C library has a default for it, and /etc is not ours to write.
        Ok(false) if name != "hosts" => Ok(()),
        Ok(false) => Err(io::Error::from(io::ErrorKind::NotFound)).context("this host has no /etc/hosts"),
        Err(error) => Err(error).with_context(|| format!("look at {}", target.display())),
    }
}

/// The path that becomes `path` once `run` is mounted as /run.
fn under(run: &Path, path: &Path) -> PathBuf {
    let rest = path.strip_prefix("/var").unwrap_or(path);
    let rest = rest.strip_prefix("/run").or_else(|_| rest.strip_prefix("run")).unwrap_or(rest);
    run.join(rest)
}

/// `path` without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_of_systemd_is_followed_into_the_pods_own_run() {
        let target = normal(Path::new("/etc/../run/systemd/resolve/stub-resolv.conf"));

        assert_eq!(target, Path::new("/run/systemd/resolve/stub-resolv.conf"));
        assert_eq!(under(Path::new("/s/run"), &target), Path::new("/s/run/systemd/resolve/stub-resolv.conf"));
        assert_eq!(under(Path::new("/s/run"), Path::new("/var/run/x")), Path::new("/s/run/x"));
    }
}
