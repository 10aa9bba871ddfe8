//! SSH: both sides speak at once.
//!
//! The host's key is asked for, which takes a whole key exchange, and a user logs in by key and moves files: the one whom
//! sshd, itself without privileges, may become. It is nobody, who has no shell but may have sftp.

use super::Server;

const SSHD: Server = Server {
    programs: &["sshd", "sftp", "ssh-keygen", "ssh-keyscan"],
    script: "ssh-keygen -q -t ed25519 -N '' -f host
ssh-keygen -q -t ed25519 -N '' -f user
printf '%s\\n' \"HostKey $1/host\" 'UsePAM no' 'PidFile none' 'Port 2222' 'Port 2223' \\
  'StrictModes no' 'PasswordAuthentication no' \"AuthorizedKeysFile $1/user.pub\" 'Subsystem sftp internal-sftp' 'ForceCommand internal-sftp' >conf
head -c 3000000 /dev/urandom >sent
exec $(command -v sshd) -D -E \"$1/log\" -f \"$1/conf\"
",
    declared: 2222,
    undeclared: 2223,
};

#[test]
fn a_key_exchange_with_sshd_proves_the_hosts_key() {
    let Some(served) = SSHD.up() else { return };
    served.greets_in_time();
    let key = std::fs::read_to_string(served.folder.join("host.pub")).unwrap();
    let key = key.split_whitespace().nth(1).unwrap();

    for port in [served.declared, served.undeclared] {
        let told =
            served.asked(port, &["ssh-keyscan", "-T", "20", "-t", "ed25519", "-p", "{port}", "server"]);
        assert!(told.contains(key), "{told}");
        served.was_opaque_under_mutual_tls(port);
    }
    served.is_closed_to_a_stranger();
}

#[test]
fn a_user_logs_in_by_key_and_files_travel_whole_both_ways() {
    let Some(served) = SSHD.up() else { return };
    let folder = served.folder.to_str().unwrap();
    let host = std::fs::read_to_string(served.folder.join("host.pub")).unwrap();
    let known: Vec<_> =
        [served.declared, served.undeclared].iter().map(|port| format!("[server]:{port} {host}")).collect();
    std::fs::write(served.folder.join("known"), known.concat()).unwrap();
    let known = format!("UserKnownHostsFile={folder}/known");

    for port in [served.declared, served.undeclared] {
        let batch =
            format!("put {folder}/sent {folder}/put-{port}\nget {folder}/put-{port} {folder}/got-{port}\n");
        let script = format!(
            "printf '{batch}' | exec sftp -F none -P {port} -i {folder}/user -b - -o {known} nobody@server"
        );
        served.asked(port, &["bash", "-c", &script]);

        let read = |name: &str| std::fs::read(served.folder.join(name)).unwrap();
        let sent = read("sent");
        assert!(sent.len() == 3_000_000 && read(&format!("put-{port}")) == sent, "{port}");
        assert!(read(&format!("got-{port}")) == sent, "{port}");
        served.was_opaque_under_mutual_tls(port);
    }

    let other = format!(
        "ssh-keygen -q -t ed25519 -N '' -f {folder}/other && \
         ! echo ls | sftp -F none -P {} -i {folder}/other -b - -o {known} nobody@server 2>&1",
        served.declared
    );
    let told = served.asked(served.declared, &["bash", "-c", &other]);
    assert!(told.contains("Permission denied (publickey"), "{told}");
}
