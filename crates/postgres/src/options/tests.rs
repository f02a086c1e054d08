//! Layers, defaults and refusals of connection settings.

use super::*;

fn resolved(text: &str, search: &FileSearch, environment: &[(&str, &str)]) -> DbResult<Resolved> {
    resolve(text, search, &|name| {
        let found = environment.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    })
}

fn options(text: &str) -> ConnectOptions {
    resolved(text, &FileSearch::none(), &[("USER", "me")]).unwrap().options
}

fn refusal(text: &str) -> String {
    let error = resolved(text, &FileSearch::none(), &[("USER", "me")]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused);
    error.to_string()
}

#[test]
fn a_url_and_its_pairs_mean_the_same() {
    let url = options("postgresql://ann:p%40ss@db:5433/shop?sslmode=require&connect_timeout=3");
    let pairs = options(
        "host=db port = 5433 dbname='shop' user=ann password='p@ss' sslmode=require connect_timeout=3",
    );
    assert_eq!(url, pairs);
    assert_eq!(url.describe(), "ann@db:5433/shop");
    assert_eq!(url.password.as_ref().unwrap().expose(), "p@ss");
    assert_eq!((url.connect_timeout_ms, url.tls.mode), (3000, TlsMode::Require));
}

#[test]
fn defaults_are_libpqs() {
    let bare = options("postgres://");
    assert_eq!(bare.describe(), "me@localhost:5432/me");
    assert_eq!(bare.tls.mode, TlsMode::Prefer);
    assert_eq!(bare.tls.channel_binding, ChannelBinding::Prefer);
    assert_eq!(options("postgres://ann@db").database, "ann");
    assert_eq!(options("postgres://h?ssl=true").tls.mode, TlsMode::Require);
    assert_eq!(options("").describe(), "me@localhost:5432/me");
}

#[test]
fn quotes_and_escapes_of_pairs() {
    let read = options(r"host=db password='it\'s a \\ b' dbname=my\ shop");
    assert_eq!(read.password.unwrap().expose(), r"it's a \ b");
    assert_eq!(read.database, "my shop");
    for text in ["host", "host='db", "a b=c", "host=db port"] {
        refusal(text);
    }
}

#[test]
fn hosts_of_every_kind() {
    assert!(options("postgres://%2Fvar%2Frun%2Fpostgresql/db").is_socket());
    assert!(options("host=/srv/socket").is_socket());
    assert_eq!(options("postgres://[::1]:5433/db").describe(), "me@[::1]:5433/db");
    let address = options("postgres://db.example/x?hostaddr=10.0.0.1");
    assert_eq!(
        (address.host.as_str(), address.hostaddr.unwrap().to_string()),
        ("db.example", "10.0.0.1".to_owned())
    );
    for text in ["postgres://a,b/x", "postgres://a:1,b:2/x", "host=a,b", "host=a port=1,2"] {
        assert!(refusal(text).contains("name the primary alone"), "{text}");
    }
}

#[test]
fn only_a_primary_is_a_target() {
    for target in ["any", "read-write", "primary"] {
        options(&format!("postgres://h?target_session_attrs={target}"));
    }
    for target in ["standby", "read-only", "prefer-standby"] {
        let text = refusal(&format!("postgres://h?target_session_attrs={target}"));
        assert!(text.contains("primary"), "{text}");
    }
}

#[test]
fn the_layers_go_over_each_other() {
    let home = tempfile::tempdir().unwrap();
    let service = home.path().join(".pg_service.conf");
    std::fs::write(&service, "[s]\nhost=of-service\nport=1111\nuser=service\n").unwrap();
    let search = FileSearch { home: Some(home.path().to_owned()), ..FileSearch::none() };
    let environment = [
        ("PGSERVICE", "s"),
        ("PGHOST", "of-environment"),
        ("PGHOSTADDR", "10.9.9.9"),
        ("PGPORT", "2222"),
        ("PGDATABASE", "environment"),
        ("PGPASSWORD", "secret"),
        ("PGCONNECT_TIMEOUT", "7"),
    ];
    let resolved = resolved("postgres://?port=3333", &search, &environment).unwrap().options;
    assert_eq!(resolved.describe(), "service@of-service:3333/environment");
    // An address that the environment has for another host is not this one's.
    assert_eq!(resolved.hostaddr, None);
    assert_eq!(resolved.connect_timeout_ms, 7000);
    assert!(resolved.password.is_some());
}

#[cfg(unix)]
#[test]
fn the_password_file_comes_last() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(".pgpass");
    std::fs::write(&path, "db:5432:shop:ann:from-file\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let search = FileSearch { home: Some(home.path().to_owned()), ..FileSearch::none() };
    let password = |text: &str, environment: &[(&str, &str)]| {
        let secret = resolved(text, &search, environment).unwrap().options.password;
        secret.map(|secret| secret.expose().to_owned())
    };
    assert_eq!(password("postgres://ann@db/shop", &[]), Some("from-file".into()));
    assert_eq!(password("postgres://bob@db/shop", &[]), None);
    assert_eq!(password("postgres://ann@db/shop", &[("PGPASSWORD", "e")]), Some("e".into()));
    assert_eq!(password("postgres://ann:u@db/shop", &[("PGPASSWORD", "e")]), Some("u".into()));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = resolved("postgres://ann@db/shop", &search, &[]).unwrap();
    assert!(open.options.password.is_none());
    assert!(open.warnings[0].contains("chmod"), "{:?}", open.warnings);
}

#[test]
fn certificates_of_the_home_directory_count_where_they_are() {
    let home = tempfile::tempdir().unwrap();
    let search = FileSearch { home: Some(home.path().to_owned()), ..FileSearch::none() };
    let tls =
        |text: &str| resolved(text, &search, &[("USER", "me")]).map(|found| found.options.tls);
    assert!(tls("postgres://h?sslmode=verify-ca").is_err());
    assert_eq!(tls("postgres://h").unwrap().root_cert, None);
    std::fs::create_dir(home.path().join(".postgresql")).unwrap();
    for name in ["root.crt", "postgresql.crt", "postgresql.key"] {
        std::fs::write(home.path().join(".postgresql").join(name), "x").unwrap();
    }
    let found = tls("postgres://h?sslmode=verify-ca").unwrap();
    assert!(matches!(found.root_cert, Some(RootCert::File(_))));
    assert!(found.cert.is_some() && found.key.is_some());
}

#[test]
fn the_public_authorities_mean_verify_full() {
    let tls = options("postgres://h?sslrootcert=system").tls;
    assert_eq!((tls.mode, tls.root_cert), (TlsMode::VerifyFull, Some(RootCert::System)));
    for mode in ["require", "verify-ca", "prefer"] {
        refusal(&format!("postgres://h?sslrootcert=system&sslmode={mode}"));
    }
}

#[test]
fn what_would_promise_too_much_is_refused() {
    for text in [
        "postgres://h?sslcrl=/x",
        "postgres://h?requirepeer=postgres",
        "postgres://h?require_auth=scram-sha-256",
        "postgres://h?sslnegotiation=direct",
        "postgres://h?gssencmode=require",
        "postgres://h?ssl_min_protocol_version=TLSv1.3",
        "postgres://h?sslmode=verify-full",
        "postgres://h?sslmode=required",
        "postgres://h?channel_binding=require&sslmode=disable",
        "postgres://h?sslcert=/c",
        "postgres://h?replication=database",
        "postgres://h?colour=blue",
        "postgres://h/a/b",
        "postgres://h:0x/a",
        "postgres://h/a#b",
        "postgres://h?port=1&port=2",
        "postgres://h?sslmode",
        "mysql://h/a",
    ] {
        refusal(text);
    }
    let error = resolved("postgres://h", &FileSearch::none(), &[("PGSSLCRL", "/x"), ("USER", "a")]);
    assert!(error.unwrap_err().to_string().contains("PGSSLCRL"));
    let warned = resolved("postgres://h?keepalives=1", &FileSearch::none(), &[("USER", "a")]);
    assert_eq!(warned.unwrap().warnings, ["keepalives has no effect here"]);
}

#[test]
fn no_message_quotes_a_password() {
    for text in [
        "postgres://ann:hush/hush@db/shop",
        "postgres://ann:hush?hush@db/shop",
        "postgres://ann:hush:hush@h:u@sh/shop",
        "postgres://ann:hu%zzsh@db/shop",
        "password=hush host",
        "password='hush",
    ] {
        if let Err(error) = resolved(text, &FileSearch::none(), &[("USER", "me")]) {
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }
    let shown = format!("{:?}", options("postgres://ann:hush@db/shop"));
    assert!(!shown.contains("hush"), "{shown}");
}

#[test]
fn a_replica_takes_from_the_primary_what_it_does_not_say() {
    let primary = options("postgres://ann:pw@db:5433/shop?sslmode=require&connect_timeout=3");
    let other = replica("postgres://db2", &primary).unwrap();
    assert_eq!(other.describe(), "ann@db2:5432/shop");
    assert_eq!((&other.password, other.tls.mode), (&primary.password, TlsMode::Require));
    assert_eq!(other.connect_timeout_ms, 3000);
    assert!(replica("postgres:///x", &primary).is_err());
}
