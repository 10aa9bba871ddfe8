//! What to say when the kernel refuses a namespace: which setting it is, and what the operator can do.

use std::{fs, io, path::Path};

/// A step on the way into the lab's namespaces failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the lab's namespaces: {step}: {cause}\n{}", advice(cause))]
pub struct NamespacesRefused {
    /// What was tried.
    pub step: &'static str,
    /// What the kernel said.
    pub cause: io::Error,
}

impl NamespacesRefused {
    /// For `map_err`.
    pub fn at<E: Into<io::Error>>(step: &'static str) -> impl FnOnce(E) -> Self {
        move |cause: E| Self { step, cause: cause.into() }
    }
}

fn advice(cause: &io::Error) -> String {
    if rustix::process::geteuid().is_root() {
        return "Root was refused as well: this container or sandbox forbids namespaces. Give it CAP_SYS_ADMIN and \
                CAP_NET_ADMIN (docker: --privileged), or run the lab outside of it."
            .to_owned();
    }
    let again = format!("  - run it as root:  sudo -E {}", command_line());
    match restriction(cause) {
        Restriction::AppArmor => {
            let program = std::env::current_exe().unwrap_or_default();
            let program = program.display();
            format!(
                "This system forbids unprivileged user namespaces (kernel.apparmor_restrict_unprivileged_userns = 1, the \
                 default of Ubuntu 24.04). Choose one:\n{again}\n  - until the next reboot:  sudo sysctl -w \
                 kernel.apparmor_restrict_unprivileged_userns=0\n  - allow this program alone; write \
                 /etc/apparmor.d/douane-lab:\n      abi <abi/4.0>,\n      include <tunables/global>\n      profile \
                 douane-lab {program} flags=(unconfined) {{ userns, }}\n    and load it:  sudo apparmor_parser -r \
                 /etc/apparmor.d/douane-lab"
            )
        }
        Restriction::Setting(setting, remedy) => {
            format!(
                "This system forbids unprivileged user namespaces ({setting}). Choose one:\n{again}\n  - until the next \
                 reboot:  sudo sysctl -w {remedy}"
            )
        }
        Restriction::Unknown => {
            format!(
                "No setting of /proc/sys explains it; a container's seccomp filter, a chroot or a kernel without user \
                 namespaces does this. Choose one:\n{again}\n  - run it outside of the container"
            )
        }
    }
}

enum Restriction {
    AppArmor,
    Setting(&'static str, &'static str),
    Unknown,
}

fn restriction(cause: &io::Error) -> Restriction {
    let is = |path: &str, value: &str| {
        fs::read_to_string(Path::new("/proc/sys").join(path)).is_ok_and(|it| it.trim() == value)
    };
    if is("kernel/apparmor_restrict_unprivileged_userns", "1") {
        return Restriction::AppArmor;
    }
    if is("kernel/unprivileged_userns_clone", "0") {
        return Restriction::Setting(
            "kernel.unprivileged_userns_clone = 0",
            "kernel.unprivileged_userns_clone=1",
        );
    }
    if is("user/max_user_namespaces", "0") {
        return Restriction::Setting("user.max_user_namespaces = 0", "user.max_user_namespaces=10000");
    }
    if cause.raw_os_error() == Some(nix::libc::ENOSPC) {
        return Restriction::Setting(
            "the limit of namespaces is reached: user.max_user_namespaces or user.max_net_namespaces",
            "user.max_user_namespaces=10000 user.max_net_namespaces=10000",
        );
    }
    Restriction::Unknown
}

fn command_line() -> String {
    let arguments: Vec<_> = std::env::args_os().map(|it| it.to_string_lossy().into_owned()).collect();
    arguments.join(" ")
}
