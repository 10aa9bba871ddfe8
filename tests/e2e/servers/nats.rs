//! NATS: the server speaks first, and then both whenever they like.

use super::{Server, python};

const NATS: Server = Server {
    programs: &["nats-server", "python3"],
    script: "nats-server -a '::' -p 4223 >log 2>&1 &
exec nats-server -a '::' -p 4222 >>log 2>&1
",
    declared: 4222,
    undeclared: 4223,
};

#[test]
fn nats_hands_messages_from_publisher_to_subscriber_and_is_heard_first() {
    let Some(served) = NATS.up() else { return };
    served.greets_in_time();

    for port in [served.declared, served.undeclared] {
        let client = "
def join():
    s=socket.create_connection(('server',int(sys.argv[1])),30); f=s.makefile('rwb')
    assert f.readline().startswith(b'INFO '); f.write(b'CONNECT {\"verbose\":false}\\r\\nPING\\r\\n'); f.flush()
    assert f.readline()==b'PONG\\r\\n'; return f
sub,pub=join(),join()
sub.write(b'SUB orders 1\\r\\nPING\\r\\n'); sub.flush(); assert sub.readline()==b'PONG\\r\\n'
for i in range(1000):
    text=b'%d'%i; pub.write(b'PUB orders %d\\r\\n%s\\r\\n'%(len(text),text))
pub.flush()
total=0
for _ in range(1000):
    assert sub.readline().startswith(b'MSG orders 1 '); total+=int(sub.readline())
print(total)";
        let told = served.asked(port, &["python3", "-c", &python(client), "{port}"]);
        assert_eq!(told.trim(), "499500");
        served.was_opaque_under_mutual_tls(port);
    }
    served.is_closed_to_a_stranger();
}
