//! The Secret, the Lease and the ConfigMap by which replicas share a state, on a real API and by our service account's rights:
//! one writes at a time, and whoever lost its turn writes no more, however late it wakes up.

use std::sync::Arc;

use douane_ca::{
    authority::{ClusterShelf, Silence},
    config::Kubernetes,
    state::{Item, Shelf},
};
use douane_tests::{kubernetes::Cluster, wait::eventually};

use super::plane::{LIMIT, installed};

fn open(cluster: &Cluster) -> Arc<ClusterShelf> {
    let kubeconfig = Some(cluster.kubeconfig_of("douane-system", "douane-ca"));
    let access = Kubernetes { kubeconfig, ..Kubernetes::default() };
    Arc::new(ClusterShelf::open(&access, &mut Silence::default()).unwrap())
}

fn kubectl(cluster: &Cluster, arguments: &[&str]) {
    let said = cluster.kubectl(&[arguments, &["-n", "douane-system"]].concat());
    assert!(said.ok, "{}", said.err);
}

fn text(shelf: &ClusterShelf) -> Option<String> {
    shelf.read(Item::Authority).unwrap().map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
#[ignore = "needs a real Kubernetes API server: tests/kubernetes/run"]
fn g11_whoever_lost_its_turn_writes_no_more_and_a_lost_race_is_read_again() {
    let mut cluster = installed();
    let (one, two) = (open(&cluster), open(&cluster));
    assert_eq!((one.replica(), two.replica()), (1, 2));
    assert!(one.lead().unwrap() && !two.lead().unwrap());
    assert_eq!(text(&one), None);
    one.write(Item::Authority, b"first").unwrap();
    assert_eq!(text(&two).as_deref(), Some("first"));
    let refused = two.write(Item::Authority, b"not its turn").unwrap_err();
    assert!(refused.to_string().contains("another replica leads"), "{refused}");

    // Somebody else touches the Secret between the look and the write.
    text(&one);
    kubectl(&cluster, &["annotate", "secret", "douane-authority", "touched=yes"]);
    let lost = one.write(Item::Authority, b"lost").unwrap_err();
    assert!(lost.to_string().contains("read again"), "{lost}");
    text(&one);
    one.write(Item::Authority, b"second").unwrap();

    // The lease runs out while its holder sleeps, with its last look behind it.
    text(&one);
    let free = r#"{"spec":{"holderIdentity":""}}"#;
    kubectl(&cluster, &["patch", "lease", "douane-authority", "--type=merge", "-p", free]);
    assert!(two.lead().unwrap());
    assert!(one.write(Item::Authority, b"asleep").is_err(), "another version lies there");
    text(&one);
    let refused = one.write(Item::Authority, b"awake").unwrap_err();
    assert!(refused.to_string().contains("another replica leads"), "even if it looks again: {refused}");
    assert_eq!(text(&two).as_deref(), Some("second"));
    two.write(Item::Authority, b"third").unwrap();
    assert!(!one.lead().unwrap());

    // What each says of itself, the other reads when it leads; nobody writes another's.
    one.write(Item::Horizon(1), b"{\"signedUntil\":7}").unwrap();
    assert!(one.write(Item::Horizon(2), b"{}").is_err());
    eventually("the leader hears of it", LIMIT, || {
        two.lead().unwrap();
        let heard = two.read(Item::Horizon(1)).unwrap();
        if heard.as_deref() == Some(b"{\"signedUntil\":7}") { Ok(()) } else { Err(format!("{heard:?}")) }
    });

    // Without an API server nobody leads and nothing is written; afterwards it is as before.
    cluster.kill();
    assert!(two.lead().is_err() && two.read(Item::Authority).is_err());
    assert!(two.write(Item::Authority, b"nowhere").is_err());
    cluster.restart();
    eventually("it leads on", LIMIT, || match two.lead() {
        Ok(true) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(text(&two).as_deref(), Some("third"));

    // Whoever ends in order makes place at once.
    two.leave();
    assert!(one.lead().unwrap());
    text(&one);
    one.write(Item::Authority, b"fourth").unwrap();
}
