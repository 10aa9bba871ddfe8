//! The rules in a real kernel: what they redirect, what they spare, what they drop, and that they come and go whole.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails says where")]

mod packet;
mod pod;
mod traffic;

use std::{
    env, io,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    process::{Command, ExitCode, Stdio},
    thread,
    time::Instant,
};

use douane_proxy::{
    net::original_dst::{NoOriginalDst, original_dst},
    redirect,
    redirect::{
        plan::{Datagrams, INBOUND_PORT, OUTBOUND_PORT, Plan, Redirection, Spare},
        rules::Kind,
    },
};
use pod::{NEIGHBOUR, Outcome, POD, Pod};
use traffic::{MARK, PATIENCE, asked, dial, dial_marked, echo_datagrams, greeting, serve_greeting};

const FAR: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(1, 2, 3, 4)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5))];
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
const ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Tests that have a pod of their own.
macro_rules! in_a_pod {
    ($(fn $name:ident($pod:ident) $body:block)*) => {
        $(fn $name($pod: &Pod) $body)*
        const TESTS: &[(&str, fn(&Pod))] = &[$((stringify!($name), $name)),*];
    };
}

fn main() -> ExitCode {
    if let Some(inside) = pod::test_inside() {
        let (_, test) = TESTS.iter().find(|(name, _)| *name == inside).expect("a test of this file");
        test(&Pod::enter());
        return ExitCode::SUCCESS;
    }
    let filter = env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let mut code = ExitCode::SUCCESS;
    for (name, _) in TESTS.iter().filter(|(name, _)| name.contains(&filter)) {
        match pod::run(name) {
            Outcome::Passed => println!("test {name} ... ok"),
            Outcome::Skipped(why) => println!("test {name} ... SKIPPED: {}", why.trim()),
            Outcome::Failed(said) => {
                println!("test {name} ... FAILED\n{said}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

in_a_pod! {
    fn a_plan_installed_twice_is_there_once(_pod) {
        let plan = Plan::new(&redirection());
        redirect::install(&plan).unwrap();

        redirect::install(&plan).unwrap();

        let installed = redirect::show().unwrap().to_string();
        assert_eq!(installed.replace("counter packets 0", "counter"), plan.to_string());
    }

    fn removal_leaves_nothing_and_may_be_repeated(_pod) {
        install(&redirection());

        redirect::remove().unwrap();
        redirect::remove().unwrap();

        assert!(redirect::show().unwrap().chains.is_empty());
        assert_eq!(redirect::show().unwrap().to_string(), "table inet douane is not installed\n");
    }

    fn a_refused_transaction_names_the_operation_and_changes_nothing(_pod) {
        install(&redirection());
        let before = redirect::show().unwrap();
        let mut broken = Plan::new(&Redirection { excluded_inbound_ports: vec![22], ..redirection() });
        // Nothing may rewrite before connections are tracked (-200).
        broken.chains.iter_mut().rfind(|chain| chain.kind == Kind::Nat).unwrap().priority = -300;

        let refused = redirect::install(&broken).unwrap_err();

        assert!(refused.to_string().contains("add chain inet douane outbound"), "{refused}");
        assert_eq!(redirect::show().unwrap(), before);
    }

    fn outbound_connections_reach_the_sidecar_and_tell_where_they_wanted_to_go(_pod) {
        install(&redirection());
        // Each family's own loopback address, as the sidecar listens.
        let listeners = LOOPBACK.map(|address| TcpListener::bind((address, OUTBOUND_PORT)).unwrap());
        let own = POD.map(|address| SocketAddr::new(address, 8080));

        for wanted in FAR.map(|address| SocketAddr::new(address, 80)).into_iter().chain(own) {
            let _dialled = dial(wanted).unwrap();
            let (redirected, _) = listeners[usize::from(wanted.is_ipv6())].accept().unwrap();

            assert_eq!(original_dst(&redirected).unwrap(), wanted);
        }
        assert_eq!(counted("outbound connections redirected"), 4);
    }

    fn inbound_connections_reach_the_sidecar_and_tell_where_they_wanted_to_go(pod) {
        install(&redirection());
        let sidecar = TcpListener::bind((ANY, INBOUND_PORT)).unwrap();
        let _application = TcpListener::bind((ANY, 8080)).unwrap();

        for wanted in POD.map(|address| SocketAddr::new(address, 8080)) {
            let _dialled = pod.at_neighbour(move || dial(wanted)).unwrap();
            let (redirected, _) = sidecar.accept().unwrap();

            assert_eq!(original_dst(&redirected).unwrap(), wanted);
        }
        assert_eq!(counted("inbound connections redirected"), 2);
    }

    fn whoever_dials_the_sidecar_itself_is_refused(pod) {
        install(&redirection());
        let outbound = LOOPBACK.map(|address| TcpListener::bind((address, OUTBOUND_PORT)).unwrap());
        let inbound = TcpListener::bind((ANY, INBOUND_PORT)).unwrap();

        for family in [0, 1] {
            let _dialled = dial((LOOPBACK[family], OUTBOUND_PORT).into()).unwrap();
            let refused = original_dst(&outbound[family].accept().unwrap().0).unwrap_err();
            assert!(matches!(refused, NoOriginalDst::NotRedirected { .. }), "{refused}");

            let _dialled = dial((LOOPBACK[family], INBOUND_PORT).into()).unwrap();
            let refused = original_dst(&inbound.accept().unwrap().0).unwrap_err();
            assert!(matches!(refused, NoOriginalDst::NotRedirected { .. }), "{refused}");

            for port in [OUTBOUND_PORT, INBOUND_PORT] {
                let _dialled = dial((POD[family], port).into()).unwrap();
                let refused = original_dst(&outbound[family].accept().unwrap().0).unwrap_err();
                assert!(matches!(refused, NoOriginalDst::OwnPort { .. }), "{refused}");
            }

            let _dialled = pod.at_neighbour(move || dial((POD[family], OUTBOUND_PORT).into())).unwrap();
            let refused = original_dst(&inbound.accept().unwrap().0).unwrap_err();
            assert!(matches!(refused, NoOriginalDst::OwnPort { .. }), "{refused}");

            let _dialled = pod.at_neighbour(move || dial((POD[family], INBOUND_PORT).into())).unwrap();
            let refused = original_dst(&inbound.accept().unwrap().0).unwrap_err();
            assert!(matches!(refused, NoOriginalDst::NotRedirected { .. }), "{refused}");
        }
    }

    fn without_rules_nobody_is_redirected(pod) {
        let application = TcpListener::bind((ANY, 8080)).unwrap();

        for address in POD {
            let _dialled = pod.at_neighbour(move || dial((address, 8080).into())).unwrap();
            let refused = original_dst(&application.accept().unwrap().0).unwrap_err();

            assert!(matches!(refused, NoOriginalDst::NotRedirected { .. }), "{refused}");
        }
    }

    fn a_marked_socket_passes(pod) {
        install(&redirection());
        let servers = pod.at_neighbour(|| NEIGHBOUR.map(serve_greeting));

        for server in servers {
            assert_eq!(greeting(dial_marked(server)), "direct");
            assert!(dial(server).is_err(), "nobody listens at the sidecar's port");
        }
        // The sidecar also reaches its own application, by loopback and by the pod's address.
        let application = TcpListener::bind((ANY, 8080)).unwrap();
        for address in POD.into_iter().chain(LOOPBACK) {
            let _dialled = dial_marked((address, 8080).into()).unwrap();
            application.accept().unwrap();
        }
    }

    fn a_uid_passes_where_uids_exist(pod) {
        pod.require_uids();
        install(&Redirection { spare: Spare::chosen(Some(2112), None).unwrap(), ..redirection() });
        let servers = pod.at_neighbour(|| NEIGHBOUR.map(serve_greeting));

        for server in servers {
            nix::unistd::seteuid(2112.into()).unwrap();
            let spared = dial(server);
            nix::unistd::seteuid(0.into()).unwrap();

            assert_eq!(greeting(spared), "direct");
            assert!(dial(server).is_err(), "nobody listens at the sidecar's port");
        }
    }

    fn nft_reads_the_printed_plan_as_the_installed_rules(_pod) {
        let excluded_outbound_cidrs = ["10.0.0.0/9", "1.1.1.1/32", "fd99::/64", "::/0"].map(|net| net.parse().unwrap());
        let dns_resolvers = vec![NEIGHBOUR[0], NEIGHBOUR[1]];
        let plan = Plan::new(&Redirection {
            excluded_inbound_ports: vec![22],
            excluded_outbound_ports: vec![443],
            excluded_outbound_cidrs: excluded_outbound_cidrs.to_vec(),
            datagrams: Datagrams::Deny { dns_resolvers, udp_ports: vec![5000] },
            ..redirection()
        });
        nft(&["-f", "-"], &plan.to_string());
        let by_nft = nft(&["list", "ruleset"], "");
        redirect::remove().unwrap();

        redirect::install(&plan).unwrap();

        assert_eq!(nft(&["list", "ruleset"], ""), by_nft);
        let installed = redirect::show().unwrap().to_string();
        assert_eq!(installed.replace("counter packets 0", "counter"), plan.to_string());
    }

    fn a_rule_that_another_hand_added_is_shown(_pod) {
        install(&redirection());

        nft(&["-f", "-"], "insert rule inet douane inbound tcp sport 7 accept; insert rule inet douane inbound tcp dport 8 return; insert rule inet douane inbound meta nfproto ipv4 accept");

        let installed = redirect::show().unwrap().to_string();
        assert!(installed.contains("    meta l4proto tcp [not ours: cmp] accept"), "{installed}");
        assert!(installed.contains("    [not ours: nfproto] accept"), "{installed}");
        assert!(installed.contains("    tcp dport 8 [not ours: immediate] "), "{installed}");
    }

    fn loopback_stays_the_applications_own(_pod) {
        install(&redirection());

        for address in LOOPBACK {
            let server = serve_greeting(address);

            assert_eq!(greeting(dial(server)), "direct");
        }
    }

    fn excluded_ports_and_networks_pass(pod) {
        let servers = pod.at_neighbour(|| NEIGHBOUR.map(serve_greeting));
        install(&Redirection {
            excluded_inbound_ports: vec![9999],
            excluded_outbound_ports: vec![servers[0].port()],
            excluded_outbound_cidrs: vec!["fd77::/64".parse().unwrap()],
            ..redirection()
        });
        let open = TcpListener::bind((ANY, 9999)).unwrap();
        let health = TcpListener::bind((ANY, 15020)).unwrap();

        for server in servers {
            assert_eq!(greeting(dial(server)), "direct");
        }
        for (listener, port) in [(open, 9999), (health, 15020)] {
            for address in POD {
                let _dialled = pod.at_neighbour(move || dial((address, port).into())).unwrap();
                listener.accept().unwrap();
            }
        }
    }

    fn datagrams_are_dropped_and_counted(pod) {
        install(&redirection());
        let server = UdpSocket::bind((ANY, 5000)).unwrap();

        for (pods, neighbours) in POD.into_iter().zip(NEIGHBOUR) {
            let sent = UdpSocket::bind((pods, 0)).unwrap().send_to(b"out", (neighbours, 5000));
            assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::PermissionDenied);

            pod.at_neighbour(move || UdpSocket::bind((neighbours, 0)).unwrap().send_to(b"in", (pods, 5000))).unwrap();
        }
        for (protocol, name) in [(132, "SCTP"), (33, "DCCP"), (136, "UDP-Lite")] {
            let sent = packet::send(protocol, POD[0], NEIGHBOUR[0], &[0; 32]);
            assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            assert_eq!(counted(&format!("outbound {name} dropped")), 1);

            pod.at_neighbour(move || packet::send(protocol, NEIGHBOUR[0], POD[0], &[0; 32])).unwrap();
            eventually(|| counted(&format!("inbound {name} dropped")) == 1);
        }

        assert_eq!(counted("outbound UDP dropped"), 2);
        eventually(|| counted("inbound UDP dropped") == 2);
        server.set_nonblocking(true).unwrap();
        assert_eq!(server.recv(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    fn dns_to_the_resolvers_declared_ports_and_loopback_pass(pod) {
        let datagrams = Datagrams::Deny { dns_resolvers: NEIGHBOUR.to_vec(), udp_ports: vec![5000] };
        install(&Redirection { datagrams, ..redirection() });

        for (pods, neighbours) in POD.into_iter().zip(NEIGHBOUR) {
            pod.at_neighbour(move || echo_datagrams(UdpSocket::bind((neighbours, 53)).unwrap()));
            assert_eq!(asked(pods, (neighbours, 53).into()).unwrap(), "echo");
            assert!(asked(pods, (FAR[usize::from(pods.is_ipv6())], 53).into()).is_err());

            echo_datagrams(UdpSocket::bind((pods, 5000)).unwrap());
            let answer = pod.at_neighbour(move || asked(neighbours, (pods, 5000).into()));
            assert_eq!(answer.unwrap(), "echo");
        }
        for address in LOOPBACK {
            echo_datagrams(UdpSocket::bind((address, 6000)).unwrap());
            assert_eq!(asked(address, (address, 6000).into()).unwrap(), "echo");
        }
    }

    fn datagrams_pass_where_they_are_allowed(pod) {
        install(&Redirection { datagrams: Datagrams::Allow, ..redirection() });

        for (pods, neighbours) in POD.into_iter().zip(NEIGHBOUR) {
            pod.at_neighbour(move || echo_datagrams(UdpSocket::bind((neighbours, 7000)).unwrap()));
            assert_eq!(asked(pods, (neighbours, 7000).into()).unwrap(), "echo");
        }
    }

    fn a_segment_that_escapes_redirection_is_dropped(pod) {
        install(&redirection());
        let _application = TcpListener::bind((ANY, 8080)).unwrap();

        // Connection tracking cannot begin with an answer, so that NAT never sees it.
        let stray = packet::syn_ack((NEIGHBOUR[0], 4000).into(), (POD[0], 8080).into());
        pod.at_neighbour(move || packet::send(6, NEIGHBOUR[0], POD[0], &stray)).unwrap();

        eventually(|| counted("inbound TCP that escaped redirection dropped") == 1);
    }
}

fn redirection() -> Redirection {
    Redirection {
        spare: Spare::chosen(None, Some(MARK)).unwrap(),
        excluded_inbound_ports: Vec::new(),
        excluded_outbound_ports: Vec::new(),
        excluded_outbound_cidrs: Vec::new(),
        datagrams: Datagrams::Deny { dns_resolvers: Vec::new(), udp_ports: Vec::new() },
    }
}

fn install(redirection: &Redirection) {
    redirect::install(&Plan::new(redirection)).unwrap();
}

/// What `nft` says, told `input`.
fn nft(arguments: &[&str], input: &str) -> String {
    let mut nft = Command::new("nft");
    let nft = nft.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running =
        nft.spawn().unwrap_or_else(|error| pod::skip(&format!("no nft to compare with: {error}")));
    running.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let finished = running.wait_with_output().unwrap();
    assert!(finished.status.success());
    String::from_utf8(finished.stdout).unwrap()
}

fn counted(label: &str) -> u64 {
    redirect::show().unwrap().packets(label).unwrap()
}

fn eventually(holds: impl Fn() -> bool) {
    let patient_until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < patient_until, "it never came to hold");
        thread::yield_now();
    }
}
