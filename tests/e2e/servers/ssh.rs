//! SSH: both sides speak at once.
//!
//! The host's key is asked for, which takes a whole key exchange; a log-in would need a user whom sshd, itself without
//! privileges, may become.

use super::Server;

const SSHD: Server = Server {
    programs: &["sshd", "ssh-keygen", "ssh-keyscan"],
    script: "ssh-keygen -q -t ed25519 -N '' -f host
printf 'HostKey %s/host\\nUsePAM no\\nPidFile none\\nPort 2222\\nPort 2223\\n' \"$1\" >conf
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
