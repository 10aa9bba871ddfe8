//! A real Kubernetes API server with its etcd, on loopback, which end with the test: nothing runs pods, and no controller
//! does anything, so that tests write what kubelets and controllers would.
//!
//! Only for tests that `tests/kubernetes/run` runs: it says by `DOUANE_KUBERNETES` where the programs are.

mod audit;
mod papers;
mod server;

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use self::server::Server;

pub use self::audit::Request;

/// Where `kube-apiserver` and `kubectl` are.
pub const FOLDER: &str = "DOUANE_KUBERNETES";
/// The `iss` of service account tokens.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A Kubernetes API that runs until it is dropped.
#[derive(Debug)]
pub struct Cluster {
    server: Server,
    admin: PathBuf,
    // Removed last: the programs write into it.
    folder: tempfile::TempDir,
}

/// What `kubectl` said.
#[derive(Debug)]
pub struct Said {
    /// Did it succeed?
    pub ok: bool,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Cluster {
    /// Starts one, and waits until it answers.
    ///
    /// # Panics
    /// When it does not; what the programs said is in the message.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("douane-kubernetes-").tempdir().expect("a folder");
        papers::write(folder.path());
        let server = Server::start(&programs(), folder.path());
        let admin = folder.path().join("admin.kubeconfig");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let user = format!("client-certificate: {}, client-key: {}", path("admin.crt"), path("admin.key"));
        fs::write(&admin, kubeconfig(&server, folder.path(), &user)).expect("the folder is ours");
        Self { server, admin, folder }
    }

    /// Where it listens: `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The certificate of its authority.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// A folder that goes with the cluster.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn admin(&self) -> &Path {
        &self.admin
    }

    /// A kubeconfig of this service account, by a token of an hour that lies in a file beside it, as in a pod.
    ///
    /// # Panics
    /// When there is no such account.
    #[must_use]
    pub fn kubeconfig_of(&self, namespace: &str, account: &str) -> PathBuf {
        let token = self.token(namespace, account, &["--duration", "1h"]);
        let file = self.folder.path().join(format!("{namespace}-{account}.token"));
        fs::write(&file, token).expect("the folder is ours");
        let path = self.folder.path().join(format!("{namespace}-{account}.kubeconfig"));
        let user = format!("tokenFile: {}", file.display());
        fs::write(&path, kubeconfig(&self.server, self.folder.path(), &user)).expect("the folder is ours");
        path
    }

    /// A token of this service account; `options` of `kubectl create token`.
    ///
    /// # Panics
    /// When there is no such account.
    #[must_use]
    pub fn token(&self, namespace: &str, account: &str, options: &[&str]) -> String {
        let made = self.kubectl(&[&["create", "token", "-n", namespace, account], options].concat());
        assert!(made.ok, "{}", made.err);
        made.out.trim().to_owned()
    }

    /// `kubectl` with these arguments, as the administrator.
    #[must_use]
    pub fn kubectl(&self, arguments: &[&str]) -> Said {
        self.kubectl_with(arguments, "")
    }

    /// `kubectl` with these arguments and this input.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Said {
        let mut child = Command::new(programs().join("kubectl"))
            .arg("--kubeconfig")
            .arg(&self.admin)
            .args(arguments)
            // Its cache of what the API serves would outlive a CustomResourceDefinition.
            .env("KUBECACHEDIR", self.folder.path().join("kubectl"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl starts");
        // It may end without having read.
        let _ = child.stdin.take().expect("it has an input").write_all(input.as_bytes());
        let ended = child.wait_with_output().expect("it ends");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said { ok: ended.status.success(), out: text(ended.stdout), err: text(ended.stderr) }
    }

    /// Applies YAML as `kubectl apply -f -` does.
    ///
    /// # Panics
    /// When it is refused.
    pub fn apply(&self, yaml: &str) {
        let said = self.kubectl_with(&["apply", "-f", "-"], yaml);
        assert!(said.ok, "{}\nof {yaml}", said.err);
    }

    /// Applies every file of a folder.
    ///
    /// # Panics
    /// When one is refused.
    pub fn apply_folder(&self, folder: &Path) {
        let said = self.kubectl(&["apply", "-f", &folder.display().to_string()]);
        assert!(said.ok, "{}", said.err);
    }

    /// Writes the status of an object, as its kubelet or controller would: `status` is JSON.
    ///
    /// # Panics
    /// When it is refused.
    pub fn set_status(&self, namespace: &str, object: &str, status: &Value) {
        let patch = serde_json::json!({ "status": status }).to_string();
        let said = self.kubectl(&[
            "patch",
            "-n",
            namespace,
            object,
            "--subresource=status",
            "--type=merge",
            "-p",
            &patch,
        ]);
        assert!(said.ok, "{}", said.err);
    }

    /// Deletes an object at once, as when its kubelet had ended it.
    ///
    /// # Panics
    /// When it is refused.
    pub fn delete(&self, namespace: &str, object: &str) {
        let said = self.kubectl(&["delete", "-n", namespace, object, "--grace-period=0", "--force"]);
        assert!(said.ok, "{}", said.err);
    }

    /// An object as JSON; `Null` where there is none.
    ///
    /// # Panics
    /// When `kubectl` writes no JSON.
    #[must_use]
    pub fn get(&self, namespace: &str, object: &str) -> Value {
        let said = self.kubectl(&["get", "-n", namespace, object, "-o", "json"]);
        if said.ok { serde_json::from_str(&said.out).expect("kubectl writes JSON") } else { Value::Null }
    }

    /// A path of the API, as text.
    ///
    /// # Panics
    /// When it is refused.
    #[must_use]
    pub fn raw(&self, path: &str) -> String {
        let said = self.kubectl(&["get", "--raw", path]);
        assert!(said.ok, "{}", said.err);
        said.out
    }

    /// Everything that a service account has asked of the API so far, as its audit log has it.
    #[must_use]
    pub fn asked_by(&self, namespace: &str, account: &str) -> BTreeSet<Request> {
        audit::asked(self.folder.path(), &format!("system:serviceaccount:{namespace}:{account}"))
    }

    /// Kills the API server, as a power failure would. Its etcd lives on.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts the killed API server again, where it was.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn restart(&mut self) {
        self.server.restart();
    }
}

fn programs() -> PathBuf {
    PathBuf::from(
        env::var_os(FOLDER).expect("tests/kubernetes/run says where kube-apiserver and kubectl are"),
    )
}

fn kubeconfig(server: &Server, folder: &Path, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\nclusters:\n- name: test\n  cluster: {{server: '{url}', \
         certificate-authority: {ca}}}\nusers:\n- name: test\n  user: {{{user}}}\ncontexts:\n- name: test\n  context: \
         {{cluster: test, user: test}}\n",
        url = server.url(),
        ca = folder.join("ca.crt").display(),
    )
}
