//! SMTP: the server speaks first, and a mail is taken.

use super::{Server, python};

const EXIM: Server = Server {
    programs: &["exim4", "python3"],
    script: "cat >conf <<END
exim_user = nobody
exim_group = nogroup
spool_directory = $1/spool
log_file_path = $1/%slog
pid_file_path = $1/pid
primary_hostname = mail.test
tls_advertise_hosts =
host_lookup =
rfc1413_query_timeout = 0s
queue_only = true
acl_smtp_rcpt = accept
acl_smtp_data = accept
deliver_drop_privilege = true
keep_environment =
local_interfaces = <; 0.0.0.0 ; ::0
daemon_smtp_ports = 2525 : 2526
END
exec exim4 -C \"$1/conf\" -bdf
",
    declared: 2525,
    undeclared: 2526,
};

#[test]
fn a_mail_server_takes_mail_and_is_heard_first() {
    let Some(served) = EXIM.up() else { return };
    served.greets_in_time();

    for port in [served.declared, served.undeclared] {
        let send = "import smtplib\ns=smtplib.SMTP('server',int(sys.argv[1]),timeout=30)\n\
                    s.sendmail('a@test',['b@test'],'Subject: x\\n\\n'+'hello\\n'*20000)\nprint(s.quit()[0])";
        assert_eq!(served.asked(port, &["python3", "-c", &python(send), "{port}"]).trim(), "221");
        served.was_opaque_under_mutual_tls(port);
    }

    let spool = std::fs::read_dir(served.folder.join("spool/input")).unwrap().flatten();
    let mails = spool.filter(|file| file.file_name().to_string_lossy().ends_with("-D"));
    let sizes: Vec<u64> = mails.map(|file| file.metadata().unwrap().len()).collect();
    assert!(sizes.len() == 2 && sizes.iter().all(|size| *size >= 120_000), "{sizes:?}");
    served.is_closed_to_a_stranger();
}
