//! PostgreSQL: the client speaks first, in bytes that are no request.

use super::Server;

const POSTGRES: Server = Server {
    programs: &["initdb", "postgres", "psql"],
    script: "initdb -D data -A trust -U postgres --no-sync --locale=C >log 2>&1
echo 'host all all all trust' >>data/pg_hba.conf
cp -r data other
postgres -D other -p 5433 -h '*' -k \"$1\" -c fsync=off -c shared_buffers=8MB >>log 2>&1 &
exec postgres -D data -p 5432 -h '*' -k \"$1\" -c fsync=off -c shared_buffers=8MB >>log 2>&1
",
    declared: 5432,
    undeclared: 5433,
};

#[test]
fn postgresql_answers_its_own_client() {
    let Some(served) = POSTGRES.up() else { return };

    for port in [served.declared, served.undeclared] {
        let sql = "create table t as select i, repeat('x', 1000) as b from generate_series(1, 2000) i; \
                   select count(*), sum(i), sum(length(b)) from t";
        let psql = ["psql", "-h", "server", "-p", "{port}", "-U", "postgres", "-Atq", "-c"];
        assert_eq!(served.asked(port, &[&psql[..], &[sql]].concat()).trim(), "2000|2001000|2000000");
        let copied = served.asked(port, &[&psql[..], &["copy t to stdout"]].concat());
        assert_eq!(copied.lines().count(), 2000);
        served.was_opaque_under_mutual_tls(port);
    }
    served.is_closed_to_a_stranger();
}
