//! Layers and what becomes of them.

use super::*;

fn node(text: &str) -> Layer {
    super::node::parse("config.toml", &format!("version = 1\n{text}")).unwrap()
}

fn refused(text: &str) -> String {
    let error = super::node::parse("config.toml", text).unwrap_err();
    match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn with(node: &Layer, annotations: &[(&str, &str)]) -> Result<Policy, String> {
    resolve(node, &Layer::default(), annotations.iter().copied()).map_err(|error| error.to_string())
}

#[test]
fn a_node_that_says_nothing_gives_agent_s_defaults() {
    let policy = with(&Layer::default(), &[("other.example/x", "y")]).unwrap();
    assert_eq!(policy, Policy::default());
    for (setting, (name, value, from)) in SETTINGS.iter().zip(policy.list()) {
        assert_eq!((name, from), (setting.name, Origin::Default));
        assert_eq!(value, (setting.agent)(), "{name}");
    }
}

#[test]
fn the_handler_s_word_counts_before_the_node_s_even_where_it_is_looser() {
    let node = node("no_new_privs = true\nmode = 'production'\n");
    let handler = Layer {
        no_new_privs: Some(false),
        ..Layer::default()
    };
    let policy = resolve(&node, &handler, []).unwrap();
    assert_eq!(
        (policy.no_new_privs.value, policy.no_new_privs.from),
        (false, Origin::Handler)
    );
    assert_eq!((policy.mode.value, policy.mode.from), (Mode::Production, Origin::Node));
    assert_eq!(
        policy.require_memory_limit,
        Decided {
            value: true,
            from: Origin::Default
        }
    );
}

#[test]
fn a_pod_tightens_and_never_loosens() {
    let strict = node("no_new_privs = true\ncapabilities.allow = ['CAP_CHOWN', 'kill']\n");
    let policy = with(&strict, &[("nucleus.dev/capabilities.allow", "CAP_KILL")]).unwrap();
    assert_eq!(policy.capabilities.value, CapabilityLimit::Only(1 << 5));
    assert_eq!(policy.capabilities.from, Origin::Pod);
    assert_eq!(
        with(&strict, &[("nucleus.dev/no_new_privs", "false")]).unwrap_err(),
        "annotation nucleus.dev/no_new_privs: true is demanded by the node's configuration, and a pod may only tighten \
         it: false is refused"
    );
    let error = with(
        &strict,
        &[("nucleus.dev/capabilities.allow", "CAP_KILL, CAP_SYS_ADMIN")],
    )
    .unwrap_err();
    assert!(error.contains(r#"["CAP_CHOWN", "CAP_KILL"] is demanded"#), "{error}");
    assert!(with(&strict, &[("nucleus.dev/capabilities.allow", "all")]).is_err());
    // What is there already may be asked for; it stays the node's decision.
    let policy = with(&strict, &[("nucleus.dev/no_new_privs", "true")]).unwrap();
    assert_eq!(policy.no_new_privs.from, Origin::Node);
}

#[test]
fn a_pod_that_asks_for_production_gets_its_defaults_without_losing_the_node_s_demands() {
    let node = node("no_new_privs = false\ncapabilities.allow = ['CAP_CHOWN', 'CAP_NET_RAW']\n");
    let policy = with(&node, &[("nucleus.dev/mode", "production")]).unwrap();
    assert_eq!((policy.mode.value, policy.no_new_privs.value), (Mode::Production, true));
    // CAP_NET_RAW is not among production's.
    assert_eq!(policy.capabilities.value, CapabilityLimit::Only(1));
    assert!(
        with(
            &super::tests::node("mode = 'production'"),
            &[("nucleus.dev/mode", "agent")]
        )
        .is_err()
    );
}

#[test]
fn the_strict_tier_brings_a_list_of_ports_of_whoever_demands_it() {
    let ports = |node: &str, handler: &str, annotations: &[(&str, &str)]| {
        let (node, handler) = (super::tests::node(node), super::tests::node(handler));
        let annotations = annotations.iter().copied();
        resolve(&node, &handler, annotations)
            .map(|policy| policy.landlock_tcp_connect)
            .map(|ports| (ports.value.to_string(), ports.from))
            .map_err(|error| error.to_string())
    };
    let (strict, listed) = ("landlock.tier = 'strict'", "landlock.tcp_connect = ['5432']");
    let tier = ("nucleus.dev/landlock.tier", "strict");
    let asked = ("nucleus.dev/landlock.tcp_connect", "5432");
    let (none, one, any) = ("[]".to_owned(), r#"["5432"]"#.to_owned(), "\"any\"".to_owned());
    assert_eq!(ports(strict, "", &[]), Ok((none.clone(), Origin::Node)));
    assert_eq!(ports("", strict, &[]), Ok((none.clone(), Origin::Handler)));
    assert_eq!(ports("", "", &[tier]), Ok((none, Origin::Pod)));
    assert_eq!(ports("", "", &[tier, asked]), Ok((one.clone(), Origin::Pod)));
    assert_eq!(ports(listed, strict, &[]), Ok((one.clone(), Origin::Node)));
    assert_eq!(ports(listed, "", &[tier]), Ok((one, Origin::Node)));
    assert_eq!(
        ports(strict, "landlock.tier = 'hardened'", &[]),
        Ok((any, Origin::Default))
    );
    let error = ports(strict, "", &[asked]).unwrap_err();
    assert!(error.contains("[] is demanded by the node's configuration"), "{error}");
}

#[test]
fn an_annotation_that_is_unknown_malformed_or_not_for_pods_is_refused() {
    let silent = Layer::default();
    assert_eq!(
        with(&silent, &[("nucleus.dev/no-new-priv", "true")]).unwrap_err(),
        "annotations: there is no setting \"no-new-priv\"; \"no_new_privs\" may be meant"
    );
    assert_eq!(
        with(&silent, &[("nucleus.dev/no_new_privs", "yes")]).unwrap_err(),
        "annotations: no_new_privs is true or false, not \"yes\""
    );
    assert!(
        with(&silent, &[("nucleus.dev/gvisor.path", "/usr/bin/runsc")])
            .unwrap_err()
            .contains("only the node's")
    );
    assert!(
        with(&silent, &[("nucleus.dev/", "x")])
            .unwrap_err()
            .contains("no setting \"\"")
    );
}

#[test]
fn a_configuration_is_refused_by_line() {
    assert_eq!(
        refused("version = 1\n\n[capabilities]\nalow = 'all'\n"),
        "config.toml, line 4: there is no setting \"capabilities.alow\"; \"capabilities.allow\" may be meant"
    );
    assert_eq!(
        refused("version = 1\nmode = 'prod'"),
        "config.toml, line 2: mode is \"agent\" or \"production\", not \"prod\""
    );
    assert!(refused("version = 1\nno_new_privs = 'true'").contains("true or false"));
    assert!(refused("version = 1\ncapabilities.allow = ['CAP_TIME_TRAVEL']").contains("CAP_TIME_TRAVEL"));
    assert!(refused("mode = 'agent'").contains("`version = 1` has to be there"));
    assert!(refused("version = 2").contains("found Number(2)"));
    assert!(refused("version = 1\nmode agent").starts_with("config.toml: line 2: "));
}

#[test]
fn a_policy_survives_its_record() {
    let policy = with(&node("mode = 'production'"), &[]).unwrap();
    let text = serde_json::to_string(&policy).unwrap();
    assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), policy);
}

/// In lines of 120 characters at most, where words allow.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().unwrap();
        if line.is_empty() || line.chars().count() + 1 + word.chars().count() <= 120 {
            let separator = if line.is_empty() { "" } else { " " };
            line.push_str(&format!("{separator}{word}"));
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n")
}

/// What docs/policy.md says of the settings.
fn reference() -> String {
    let section = |setting: &Setting| {
        let about: Vec<_> = setting.about.lines().map(str::trim).collect();
        let pods = if setting.for_pods {
            "may tighten it"
        } else {
            "may not set it"
        };
        let (agent, production) = ((setting.agent)(), (setting.production)());
        let values = format!(
            "It is {}. Default: `{agent}`; in production mode: `{production}`. Pods {pods}.",
            setting.expected
        );
        let about = about.join("\n");
        format!("### `{}`\n\n{}\n\n{}\n", setting.name, about.trim(), wrapped(&values))
    };
    SETTINGS.iter().map(section).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_setting_is_documented_as_it_is() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policy.md");
    let text = std::fs::read_to_string(page).unwrap();
    let (before, found) = text.split_once("## Settings\n\n").unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(page, format!("{before}## Settings\n\n{}", reference())).unwrap();
        return;
    }
    let advice = "docs/policy.md is not what the code says: write it with UPDATE_DOCS=1 cargo test -p runtime-core";
    assert_eq!(found, reference(), "{advice}");
}

#[test]
fn whatever_node_and_handler_say_no_pod_gets_less() {
    const SAID: [(&str, &str, &str); 18] = [
        ("mode", "'agent'", "agent"),
        ("mode", "'production'", "production"),
        ("no_new_privs", "true", "true"),
        ("no_new_privs", "false", "false"),
        ("capabilities.allow", "'all'", "all"),
        ("capabilities.allow", "[]", ""),
        (
            "capabilities.allow",
            "['CAP_CHOWN', 'CAP_NET_RAW']",
            "CAP_CHOWN,CAP_NET_RAW",
        ),
        ("landlock.tier", "'none'", "none"),
        ("landlock.tier", "'hardened'", "hardened"),
        ("landlock.tier", "'strict'", "strict"),
        ("landlock.tcp_connect", "['443', '5432']", "443"),
        ("landlock.write", "['/data']", "/data/a"),
        ("landlock.scope", "['signal']", "signal"),
        ("host_paths", "'allow'", "allow"),
        ("require.lsm", "['a', 'b']", "a,b"),
        ("require.lsm", "[]", ""),
        ("require.landlock_abi", "6", "6"),
        ("require.memory_limit", "false", "false"),
    ];
    let layer = |text: String| {
        let mut layer = Layer::default();
        for entry in toml::parse(&text).unwrap() {
            layer.set_entry("test", &entry).unwrap();
        }
        layer
    };
    let (mut granted, mut refused) = (0, 0);
    for (first, value, _) in SAID {
        for (second, other, _) in SAID.iter().filter(|(second, ..)| *second != first) {
            let said = layer(format!("{first} = {value}\n{second} = {other}\n"));
            let alone = layer(format!("{first} = {value}\n"));
            for (node, handler) in [(&said, &Layer::default()), (&alone, &said), (&said, &alone)] {
                let demanded = resolve(node, handler, []).unwrap();
                for (name, _, asked) in SAID {
                    let annotation = format!("{ANNOTATION_PREFIX}{name}");
                    match resolve(node, handler, [(annotation.as_str(), asked)]) {
                        Ok(given) => {
                            granted += 1;
                            assert!(
                                given.is_as_strict_as(&demanded),
                                "{name} = {asked}: {demanded:?} became {given:?}"
                            );
                        }
                        Err(Error::Loosens { .. }) => refused += 1,
                        Err(error) => panic!("{name} = {asked}: {error}"),
                    }
                }
            }
        }
    }
    assert!(granted > 1000 && refused > 1000, "{granted} granted, {refused} refused");
}

#[test]
fn a_volume_s_digest_is_an_annotation_of_its_own_or_one_of_a_list() {
    let silent = Layer::default();
    let (one, two) = ("ab".repeat(32), "01".repeat(32));
    let policy = with(
        &silent,
        &[
            ("nucleus.dev/volume-digest.models", &format!("sha256:{one}")),
            (
                "nucleus.dev/volume_digest",
                &format!("models=sha256:{one},/etc/app=sha256:{two}"),
            ),
        ],
    );
    let demanded = policy.unwrap().volume_digest;
    assert_eq!((demanded.value.0.len(), demanded.from), (2, Origin::Pod));
    let error = with(&silent, &[("nucleus.dev/volume-digest.models", "sha256:abc")]).unwrap_err();
    assert!(
        error.starts_with("annotation nucleus.dev/volume-digest.models: volume_digest is one digest"),
        "{error}"
    );
    let strict = node(&format!("volume_digest = ['models=sha256:{one}']\n"));
    let error = with(
        &strict,
        &[("nucleus.dev/volume-digest.models", &format!("sha256:{two}"))],
    )
    .unwrap_err();
    assert!(error.contains("is demanded by the node's configuration"), "{error}");
}
