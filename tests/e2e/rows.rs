//! Every rule that identities, certificates and their threats are held to (SPIFFE's standards, RFC 5280, and the threats
//! of a certificate authority), and the test that shows it. A test whose name begins with a row (`x1_…`) shows that row;
//! others are named here. A row that no test shows says why.
//!
//! Knows only the names of tests. It fails when one is gone, so that no rule loses its test unnoticed.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A row, what it is, tests that show it besides those that are named after it, and why one has none.
struct Row(&'static str, &'static str, &'static [&'static str], &'static str);

const SHOWN: &str = "";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // SPIFFE IDs.
    Row("i1", "scheme, trust domain, no query, no fragment", &["names_that_are_not_exactly_a_workload_are_refused"], SHOWN),
    Row("i2", "the trust domain's characters", &["a_trust_domain_is_a_bare_lower_case_name"], SHOWN),
    Row("i3", "the path's segments", &[], SHOWN),
    Row("i4", "2048 and 255 bytes", &[], SHOWN),
    Row("i5", "one spelling", &[], SHOWN),
    Row("i6", "an authority has an ID of its own, without a path", &["rows_x2_x4_x5_x7_x8_every_signer_is_what_it_must_be"], SHOWN),
    // What an issuer of X509-SVIDs must do.
    Row("x1", "exactly one URI", &["exactly_one_uri_names_a_workload"], SHOWN),
    Row("x2", "a leaf has a path, a signer has none", &["rows_x2_x4_x5_x7_x8_every_signer_is_what_it_must_be"], SHOWN),
    Row("x3", "names are critical where the subject is empty", &[], SHOWN),
    Row("x4", "basic constraints", &["rows_x2_x4_x5_x7_x8_every_signer_is_what_it_must_be"], SHOWN),
    Row("x5", "key usage", &["rows_x2_x4_x5_x7_x8_every_signer_is_what_it_must_be"], SHOWN),
    Row("x6", "extended key usage", &[], SHOWN),
    Row("x7", "no name constraints", &["rows_x2_x4_x5_x7_x8_every_signer_is_what_it_must_be"], SHOWN),
    Row("x8", "serial numbers, key identifiers, unique subjects", &["two_certificates_for_one_key_have_two_serial_numbers"], SHOWN),
    // What a validator must do.
    Row("v1", "only the bundle of the leaf's trust domain", &["a_peer_of_another_trust_domain_is_refused", "an_empty_bundle_trusts_nobody"], SHOWN),
    Row("v2", "no authority as a leaf", &["a_ca_certificate_and_two_uri_names_are_no_leaf", "what_may_sign_is_no_leaf"], SHOWN),
    Row("v3", "one SPIFFE ID with a path", &["exactly_one_uri_names_a_workload", "a_ca_certificate_and_two_uri_names_are_no_leaf"], SHOWN),
    Row("v4", "key usage is there and critical", &["a_key_usage_that_is_not_critical_is_no_leafs"], SHOWN),
    Row("v5", "what may not sign signs nothing", &["an_intermediate_that_may_not_sign_certificates_signs_nothing"], SHOWN),
    Row("v6", "unreadable or twice is not absent", &["a_leaf_with_an_extension_twice_is_refused", "an_extension_that_is_unreadable_or_twice_there_is_not_passed_over"], SHOWN),
    // Bundles.
    Row("row_1_4", "a key is published before it signs", &["an_empty_bundle_trusts_nobody", "an_older_bundle_never_replaces_a_newer_one", "row_1_4_what_is_written_is_read_as_it_was"], SHOWN),
    // The Workload API.
    Row("w1", "gRPC on a unix socket, whose caller the kernel names", &["t15_the_kernel_says_whose_process_asks"], SHOWN),
    Row("w2", "the security header", &[], SHOWN),
    Row("w3", "the codes of refusals", &[], SHOWN),
    Row("w4", "the service has no package", &[], SHOWN),
    Row("w5", "streams carry the whole state", &[], SHOWN),
    Row("w6", "what an X509-SVID response holds", &["w1_w6_a_stock_library_gets_the_pods_identity_with_a_key_of_its_own"], SHOWN),
    Row("w7", "the own trust domain's bundle, and those of others", &[], SHOWN),
    Row("w8", "both the X.509 and the JWT profile", &[], SHOWN),
    Row("w9", "tokens: who gets them, what they say, how they are verified", &[], SHOWN),
    Row("w10", "SPIFFE_ENDPOINT_SOCKET", &[], SHOWN),
    // Bundle endpoints and federation.
    Row("row_1_5", "bundles of other trust domains",
        &["row_1_5_openssl_is_served_in_tls_1_2_and_1_3_here_and_in_1_2_nowhere_else",
            "row_1_5_two_meshes_call_across_under_a_law_that_names_the_other_through_a_rotation_and_until_it_ends"],
        SHOWN),
    // Threats.
    Row("t1", "asking for another's identity", &["for_any_request_the_name_is_the_attested_one", "names_in_a_request_are_not_believed"], SHOWN),
    Row("t2", "hostile requests", &["hostile_requests_are_refused", "a_request_for_a_ca_gets_a_leaf_with_the_attested_name", "a_key_is_known_by_itself_and_not_by_its_signature", "every_allowed_kind_of_key_is_signed_as_it_is"],
        SHOWN),
    Row("t3", "stolen tokens", &["a_token_that_is_not_for_us_gets_nothing", "a_symmetric_or_absent_algorithm_is_refused", "many_who_present_one_join_token_get_one_certificate"],
        SHOWN),
    Row("t4", "a machine that was taken over", &[], SHOWN),
    Row("t5", "an authority's key that was taken", &[], SHOWN),
    Row("t6", "floods", &["strangers_fill_their_own_places_only", "one_address_cannot_take_all_places"], SHOWN),
    Row("t7", "floods through us at the API server", &[],
        "tokens are verified with the issuer's keys only: nothing that a caller sends makes us ask the API server"),
    Row("t8", "keys that leave memory", &["a_key_is_never_printed", "an_svid_needs_a_chain_and_never_shows_its_key", "each_request_has_a_key_of_its_own"], SHOWN),
    Row("t9", "back to plaintext", &["plaintext_from_outside_the_mesh_is_refused_on_both_kinds_of_address", "older_versions_of_tls_are_refused"], SHOWN),
    Row("t10", "resumed sessions", &["openssl_gets_neither_an_older_version_nor_a_renegotiation_nor_a_session_to_resume"], SHOWN),
    Row("t11", "old bundles", &["an_older_bundle_never_replaces_a_newer_one"], SHOWN),
    Row("t12", "a domain that vouches for another",
        &["a_peer_of_another_trust_domain_is_refused", "t12_a_root_vouches_for_its_own_domain_and_for_no_other_whoever_is_federated"],
        SHOWN),
    Row("t13", "first contact", &["a_control_plane_that_the_bundle_does_not_vouch_for_is_not_trusted"], SHOWN),
    Row("t14", "requests forged at the socket", &[], SHOWN),
    Row("t15", "others' processes at the socket", &[], SHOWN),
    Row("t16", "clocks", &["an_expired_peer_and_one_of_the_future_are_refused", "our_certificate_is_due_by_the_wall_clock_forwards_and_backwards"], SHOWN),
    Row("t17", "operators' mistakes", &[], SHOWN),
    Row("t18", "crashes and disks", &[], SHOWN),
    Row("t19", "an audit log that was changed", &[], SHOWN),
    Row("t20", "the supply chain", &["a_guest_stays_in_its_rooms"], "cargo-deny holds one TLS provider and the sources of all crates, in CI"),
    Row("t21", "a federated domain that misbehaves",
        &["t21_whatever_a_federated_endpoint_does_what_was_good_last_stays_and_only_for_its_domain"], SHOWN),
    Row("t22", "a leaf that outlives its signer", &["no_leaf_outlives_its_signer"], SHOWN),
    // Traps of the library that makes certificates.
    Row("trap_1", "it copies a request's wishes", &[], SHOWN),
    Row("trap_2", "it guesses the kind of a key", &["a_key_is_known_by_itself_and_not_by_its_signature"], SHOWN),
    Row("trap_3", "it refuses unknown extensions", &[], SHOWN),
    Row("trap_4", "one key, one serial number", &["two_certificates_for_one_key_have_two_serial_numbers"], SHOWN),
    Row("trap_5", "its defaults", &[], SHOWN),
    Row("trap_6", "URI name constraints", &["x7_no_name_constraints_and_no_other_extension_than_ours"], SHOWN),
    Row("trap_7", "kinds of keys that it cannot verify", &["hostile_requests_are_refused"], SHOWN),
];

#[test]
fn every_rule_of_identities_and_every_threat_is_shown_by_a_test_or_says_why_not() {
    let tests = all_tests();
    let mut wrong = Vec::new();
    for Row(row, what, others, why_not) in ROWS {
        let prefix = format!("{row}_");
        let is_named = tests.iter().any(|test| test.starts_with(&prefix));
        if !is_named && others.is_empty() && why_not.is_empty() {
            wrong.push(format!(
                "{row} ({what}): no test is named {prefix}…, none is given here, and no reason"
            ));
        }
        for other in others.iter().filter(|other| !tests.contains(**other)) {
            wrong.push(format!("{row} ({what}): there is no test {other}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// The names of functions right below a line that says that they are tests.
fn all_tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests live in the workspace");
    let mut files = Vec::new();
    for folder in ["proto", "ca", "proxy", "examples", "tests"] {
        collect(&root.join(folder), &mut files);
    }
    let mut names = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).expect("a source file is readable");
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("#[") {
                is_test |= line.contains("test]") || line.contains("test(");
            } else if let Some((_, name)) = line.split_once("fn ").filter(|_| is_test) {
                let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
                names.insert(name[..end].to_owned());
                is_test = false;
            } else if !line.starts_with("//") && !line.is_empty() {
                is_test = false;
            }
        }
    }
    names
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a source folder is readable") {
        let path = entry.expect("a folder's entry is readable").path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target" && name != "peers") {
                collect(&path, into);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}
