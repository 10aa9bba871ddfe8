//! Redis: the client speaks first, in lines of text.

use super::Server;

const REDIS: Server = Server {
    programs: &["redis-server", "redis-cli"],
    script: "settings=(--bind '*' '-::*' --protected-mode no --save '' --appendonly no)
redis-server --port 6380 \"${settings[@]}\" >log 2>&1 &
exec redis-server --port 6379 \"${settings[@]}\" >>log 2>&1
",
    declared: 6379,
    undeclared: 6380,
};

#[test]
fn redis_answers_its_own_client_also_in_a_pipeline_and_to_subscribers() {
    let Some(served) = REDIS.up() else { return };

    for port in [served.declared, served.undeclared] {
        let cli = ["redis-cli", "-h", "server", "-p", "{port}"];
        assert_eq!(served.asked(port, &[&cli[..], &["set", "a", "42"]].concat()).trim(), "OK");
        assert_eq!(served.asked(port, &[&cli[..], &["incr", "a"]].concat()).trim(), "43");
        let many = "for i in $(seq 5000); do echo \"incr n\"; done | redis-cli -h server -p {port} --pipe";
        assert!(served.asked(port, &["bash", "-c", many]).contains("errors: 0, replies: 5000"));
        assert_eq!(served.asked(port, &[&cli[..], &["get", "n"]].concat()).trim(), "5000");
        // An inline command, as typed by hand.
        let typed = "exec 3<>/dev/tcp/server/{port}; printf 'GET a\\r\\n' >&3; read -r _ <&3; read -r a <&3; echo \"$a\"";
        assert_eq!(served.asked(port, &["bash", "-c", typed]).trim(), "43");
        served.was_opaque_under_mutual_tls(port);
    }
    served.is_closed_to_a_stranger();
}
