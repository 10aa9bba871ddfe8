//! MariaDB: the server speaks first.

use super::Server;

const MARIADB: Server = Server {
    programs: &["mariadbd", "mariadb-install-db", "mariadb"],
    // No system tables' users: what is tried is the road.
    script: "mkdir data
mariadb-install-db --no-defaults --datadir=\"$1/data\" --skip-test-db --auth-root-authentication-method=normal >log 2>&1
exec mariadbd --no-defaults --datadir=\"$1/data\" --socket=\"$1/socket\" --pid-file=\"$1/pid\" --port=3306 \\
  --extra-port=3307 --extra-max-connections=20 --bind-address='*' --skip-grant-tables --skip-name-resolve \\
  --innodb-buffer-pool-size=16M >>log 2>&1
",
    declared: 3306,
    undeclared: 3307,
};

#[test]
fn mariadb_answers_its_own_client_and_is_heard_first() {
    let Some(served) = MARIADB.up() else { return };
    served.greets_in_time();

    for port in [served.declared, served.undeclared] {
        let sql = "create database if not exists shop; create or replace table shop.t (a int, b longtext); \
                   insert into shop.t select seq, repeat('x', 1000) from shop.seq_1_to_2000; \
                   select count(*), sum(a), sum(length(b)) from shop.t";
        let told = served.asked(
            port,
            &[
                "mariadb",
                "--no-defaults",
                "--protocol=tcp",
                "--skip-ssl",
                "-h",
                "server",
                "-P",
                "{port}",
                "-u",
                "root",
                "-N",
                "-e",
                sql,
            ],
        );
        assert_eq!(told.split_whitespace().collect::<Vec<_>>(), ["2000", "2001000", "2000000"]);
        served.was_opaque_under_mutual_tls(port);
    }
    served.is_closed_to_a_stranger();
}
