//! The manifests, held against what we promise of them.

use super::*;

fn wishes() -> Wishes {
    Wishes { image: "registry.example/douane:1.2.3".parse().unwrap(), ..Wishes::default() }
}

fn mesh() -> MeshFile {
    MeshFile::of_domains(&Config::default(), TOKEN_ISSUER)
}

#[test]
fn no_blank_stays_open_and_no_wish_is_lost() {
    let text = manifests(&wishes(), &mesh(), Crds::With);
    assert!(!text.contains("${"), "{text}");
    for wish in [
        "image: registry.example/douane:1.2.3\n",
        "      jwks: https://kubernetes.default.svc/openid/v1/jwks\n",
        "    trustDomain: cluster.local\n",
    ] {
        assert!(text.contains(wish), "{wish}");
    }
    assert_eq!(text, manifests(&wishes(), &mesh(), Crds::With), "the same wishes, the same text");
}

#[test]
fn what_an_operator_wrote_is_carried_as_it_is() {
    let odd = "# ${image} is no blank of ours\ntrustDomain: a.example\n\nnumTrustedProxies: 1\n";
    let text = manifests(&wishes(), &MeshFile::parse(odd).unwrap(), Crds::With);
    assert!(text.contains("    # ${image} is no blank of ours\n    trustDomain: a.example\n"), "{text}");
    assert!(MeshFile::parse("trustDomian: a").is_err());
    assert!(MeshFile::parse(mesh().text()).is_ok(), "what we write ourselves is good");
}

#[test]
fn an_upgrade_finds_what_was_wished_and_what_was_edited_since() {
    let text = manifests(&wishes(), &mesh(), Crds::Without);
    let map = text.split("\n---\n").find(|part| part.contains("kind: ConfigMap")).unwrap();
    let edited = map.replace("clusterDomain: cluster.local", "clusterDomain: other.example");
    let installed = Installed::parse(&edited).unwrap();
    assert_eq!(installed.wishes, wishes());
    assert_eq!(installed.config.cluster_domain, "other.example");
    assert!(installed.mesh.text().contains("# What the names of services end in."), "comments stay");

    let wrong = |text: &str| Installed::parse(text).unwrap_err().to_string();
    assert!(wrong("kind: Pod\nmetadata: {name: x}").contains("it is Pod x"));
    assert!(wrong(&map.replace("douane.io/installed", "other")).contains("install anew"));
    assert!(wrong(&map.replace("trustDomain:", "trustDomian:")).contains("mend it there first"));
    assert!(wrong(&map.replace("  mesh.yaml: |", "  else.yaml: |")).contains("no mesh.yaml"));
}

#[test]
fn another_configuration_makes_new_pods() {
    let hash = |mesh: &MeshFile| {
        let text = manifests(&wishes(), mesh, Crds::With);
        text.lines().find(|line| line.contains("douane.io/config:")).unwrap().to_owned()
    };
    assert_ne!(hash(&mesh()), hash(&MeshFile::parse("trustDomain: b.example").unwrap()));
}

#[test]
fn who_removes_us_closes_the_doors_first_and_the_namespace_last() {
    let text = removal(Crds::Without);
    let kinds: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("kind: ")).collect();
    assert_eq!(kinds.first(), Some(&"MutatingWebhookConfiguration"));
    assert_eq!(kinds.last(), Some(&"Namespace"), "policies stay");
    assert_eq!(removal(Crds::With).matches("\nkind: CustomResourceDefinition\n").count(), 5);
}
