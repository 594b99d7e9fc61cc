//! Tables of configurations and what becomes of them; whole files are in `tests/golden`.

use super::{Facts, File, Plan, PlanError, Wanted, install, uninstall};
use crate::config::Handler;
use crate::distribution::Distribution;

const ROOT: &str = "/etc/containerd/config.toml";

fn wanted() -> Wanted {
    Wanted {
        handlers: vec![Handler::Nucleus],
        directory: "/opt/nucleus".to_owned(),
        owner: "kube-system/nucleus".to_owned(),
        named_by_path: false,
    }
}

fn file(path: &str, text: &str) -> File {
    File {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

fn containerd(text: &str) -> Facts {
    Facts {
        distribution: Distribution::Containerd,
        config_path: ROOT.to_owned(),
        config: Some(file(ROOT, text)),
        imported: Vec::new(),
        templates: Vec::new(),
        directories: Vec::new(),
    }
}

fn on(distribution: Distribution, text: &str) -> Facts {
    let path = distribution.layout().config;
    Facts {
        distribution,
        config_path: path.to_owned(),
        config: Some(file(path, text)),
        ..containerd("")
    }
}

/// The only change of a plan: where, and what.
fn only(plan: &Plan) -> (&str, &str) {
    assert_eq!(plan.changes.len(), 1, "{plan:#?}");
    (
        &plan.changes[0].path,
        plan.changes[0].after.as_deref().unwrap_or("(gone)"),
    )
}

/// What the node looks like once the plan is carried out.
fn after(facts: &Facts, plan: &Plan) -> Facts {
    let mut facts = facts.clone();
    for change in &plan.changes {
        let known = [facts.config.as_mut()]
            .into_iter()
            .flatten()
            .chain(facts.imported.iter_mut())
            .chain(facts.templates.iter_mut())
            .find(|file| file.path == change.path);
        match (known, &change.after) {
            (Some(file), Some(text)) => file.text.clone_from(text),
            (None, Some(text)) if change.path == facts.config_path => facts.config = Some(file(&change.path, text)),
            (None, Some(text)) if change.path.ends_with(".tmpl") => facts.templates.push(file(&change.path, text)),
            (None, Some(text)) => facts.imported.push(file(&change.path, text)),
            (_, None) => {
                facts.imported.retain(|file| file.path != change.path);
                facts.templates.retain(|file| file.path != change.path);
                if facts.config.as_ref().is_some_and(|file| file.path == change.path) {
                    facts.config = None;
                }
            }
        }
    }
    facts
}

fn contents(facts: &Facts) -> Vec<&File> {
    facts.files().collect()
}

#[test]
fn the_plugin_is_named_by_the_version_that_the_file_says() {
    for (text, key) in [
        ("", "[plugins.cri.containerd"),
        ("version = 1\n", "[plugins.cri.containerd"),
        ("version = 2\n", "[plugins.\"io.containerd.grpc.v1.cri\".containerd"),
        ("version = 3\n", "[plugins.\"io.containerd.cri.v1.runtime\".containerd"),
        ("version = 4\n", "[plugins.\"io.containerd.cri.v1.runtime\".containerd"),
    ] {
        let plan = install(&containerd(text), &wanted()).unwrap();
        let (path, written) = only(&plan);
        assert_eq!(path, ROOT);
        assert!(written.starts_with(text) && written.contains(key), "{written}");
        assert!(plan.restart);
    }
}

#[test]
fn a_handler_with_a_policy_of_its_own_gets_its_path_in_every_version() {
    for version in 1..=4 {
        let both = Wanted {
            handlers: Handler::ALL.to_vec(),
            ..wanted()
        };
        let plan = install(&containerd(&format!("version = {version}\n")), &both).unwrap();
        let (_, text) = only(&plan);
        assert!(
            text.contains("runtimes.nucleus-production.options]\n    ConfigPath = \"/opt/nucleus/etc/"),
            "{text}"
        );
    }
}

#[test]
fn before_containerd_2_the_default_handler_is_written_where_none_is_configured() {
    for (text, with) in [
        ("version = 2\n", true),
        ("", true),
        (
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.kata]\nruntime_type = 'x'\n",
            false,
        ),
        ("version = 3\n", false),
    ] {
        let plan = install(&containerd(text), &wanted()).unwrap();
        assert_eq!(only(&plan).1.contains("runtimes.runc]"), with, "{text}");
    }
}

#[test]
fn a_node_that_is_as_it_should_be_is_not_written_and_not_restarted() {
    for text in [
        "version = 2\n",
        "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n",
    ] {
        let before = containerd(text);
        let done = after(&before, &install(&before, &wanted()).unwrap());
        assert_eq!(install(&done, &wanted()).unwrap(), Plan::default());
    }
}

#[test]
fn install_then_uninstall_is_byte_identical() {
    let no_config = Facts {
        config: None,
        ..containerd("")
    };
    let k0s = "# k0s_managed=true\nversion = 3\nimports = [\"/run/k0s/containerd-cri.toml\"]\n";
    for before in [
        containerd("version = 2\n# by hand\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = 'x'  # why"),
        containerd("version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n"),
        containerd(""),
        no_config,
        on(Distribution::K3s, "version = 2\n"),
        on(Distribution::Rke2, "version = 3\n"),
        on(Distribution::K0s, k0s),
        on(Distribution::Microk8s, "version = 2\noom_score = 0\n"),
    ] {
        let done = after(&before, &install(&before, &wanted()).unwrap());
        assert_ne!(contents(&done), contents(&before));
        let undone = after(&done, &uninstall(&done, &wanted().owner));
        assert_eq!(contents(&undone), contents(&before));
    }
}

#[test]
fn a_drop_in_is_used_only_where_the_file_imports_it_and_containerd_merges() {
    let conf_d = "imports = [\"/etc/containerd/conf.d/*.toml\"]\n";
    for (version, path) in [
        (2, ROOT),
        (3, "/etc/containerd/conf.d/nucleus.toml"),
        (4, "/etc/containerd/conf.d/nucleus.toml"),
    ] {
        let plan = install(&containerd(&format!("version = {version}\n{conf_d}")), &wanted()).unwrap();
        assert_eq!(only(&plan).0, path);
    }
    for imports in [
        "",
        "imports = [\"/etc/containerd/nvidia.toml\"]",
        "imports = [\"/etc/containerd/conf.d/nv*.toml\"]",
    ] {
        let plan = install(&containerd(&format!("version = 3\n{imports}\n")), &wanted()).unwrap();
        assert_eq!(only(&plan).0, ROOT);
    }
}

#[test]
fn a_drop_in_has_the_version_of_the_file_on_disk() {
    for version in [3, 4] {
        let text = format!("version = {version}\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n");
        let before = containerd(&text);
        let plan = install(&before, &wanted()).unwrap();
        assert!(
            only(&plan).1.starts_with(&format!("version = {version}\n")),
            "{plan:#?}"
        );
        assert!(plan.changes[0].directory, "the directory was not there");
        // The administrator has moved to another version meanwhile.
        let mut done = after(&before, &plan);
        done.config = Some(file(
            ROOT,
            &text.replace(&version.to_string(), &(7 - version).to_string()),
        ));
        let plan = install(&done, &wanted()).unwrap();
        assert!(
            only(&plan).1.starts_with(&format!("version = {}\n", 7 - version)),
            "{plan:#?}"
        );
    }
}

#[test]
fn before_containerd_2_the_handler_goes_where_the_last_section_of_the_plugin_is() {
    let mut facts = containerd("version = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n");
    facts.imported = vec![
        file(
            "/etc/containerd/conf.d/a.toml",
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n",
        ),
        file(
            "/etc/containerd/conf.d/b.toml",
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\n",
        ),
        file(
            "/etc/containerd/conf.d/c.toml",
            "version = 2\n[debug]\nlevel = \"info\"\n",
        ),
    ];
    assert_eq!(
        only(&install(&facts, &wanted()).unwrap()).0,
        "/etc/containerd/conf.d/b.toml"
    );
}

#[test]
fn handlers_that_were_removed_do_not_stay_after_an_upgrade() {
    let before = containerd("version = 2\n");
    let mut done = after(&before, &install(&before, &wanted()).unwrap());
    let config = done.config.as_mut().unwrap();
    // As a version wrote it that had one handler more, and another path.
    config.text = config.text.replace(
        "# END nucleus",
        "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nucleus-old]\n  runtime_type = \"x\"\n# END \
         nucleus",
    );
    let plan = install(&done, &wanted()).unwrap();
    let (_, text) = only(&plan);
    assert!(
        !text.contains("nucleus-old") && text.matches("BEGIN nucleus").count() == 1,
        "{text}"
    );
}

#[test]
fn a_block_that_stands_in_another_file_than_now_goes() {
    let before = containerd("version = 3\n");
    let mut done = after(&before, &install(&before, &wanted()).unwrap());
    let config = done.config.as_mut().unwrap();
    config.text = config.text.replace(
        "version = 3\n",
        "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n",
    );
    done.directories = vec!["/etc/containerd/conf.d".to_owned()];
    let plan = install(&done, &wanted()).unwrap();
    let paths: Vec<&str> = plan.changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(paths, [ROOT, "/etc/containerd/conf.d/nucleus.toml"]);
    assert!(!plan.changes[1].directory, "the directory was there");
}

#[test]
fn k3s_and_rke2_get_a_drop_in_or_a_template_by_what_they_rendered() {
    for (distribution, name) in [(Distribution::K3s, "k3s"), (Distribution::Rke2, "rke2")] {
        let directory = format!("/var/lib/rancher/{name}/agent/etc/containerd");
        let imports = format!("imports = [\"{directory}/config-v3.toml.d/*.toml\"]\n");
        for (text, target, begins) in [
            (
                format!("version = 3\n{imports}"),
                "config-v3.toml.d/nucleus.toml",
                "version = 3\n",
            ),
            (
                "version = 3\n".to_owned(),
                "config-v3.toml.tmpl",
                "{{ template \"base\" . }}\n",
            ),
            (
                "version = 2\n".to_owned(),
                "config.toml.tmpl",
                "{{ template \"base\" . }}\n",
            ),
        ] {
            let plan = install(&on(distribution, &text), &wanted()).unwrap();
            let (path, written) = only(&plan);
            assert_eq!(path, format!("{directory}/{target}"));
            assert!(written.starts_with(begins), "{written}");
            assert!(plan.restart);
        }
    }
}

#[test]
fn a_template_of_the_administrator_is_kept_and_what_it_rendered_is_no_stranger() {
    let directory = "/var/lib/rancher/k3s/agent/etc/containerd";
    let mut facts = on(Distribution::K3s, "version = 2\n");
    let theirs = "{{ template \"base\" . }}\n\n[plugins.x]\n  a = {{ .NodeConfig.X }}\n";
    facts.templates = vec![file(&format!("{directory}/config.toml.tmpl"), theirs)];
    let mut done = after(&facts, &install(&facts, &wanted()).unwrap());
    assert!(done.templates[0].text.starts_with(theirs));
    // k3s renders it, our lines with it.
    let rendered = done.templates[0]
        .text
        .replace("{{ template \"base\" . }}", "version = 2")
        .replace("{{ .NodeConfig.X }}", "1");
    done.config = Some(file(&format!("{directory}/config.toml"), &rendered));
    assert_eq!(install(&done, &wanted()).unwrap(), Plan::default());
    let undone = uninstall(&done, &wanted().owner);
    assert_eq!(
        only(&undone),
        (format!("{directory}/config.toml.tmpl").as_str(), theirs)
    );
}

#[test]
fn k0s_merges_a_directory_and_is_not_restarted() {
    let plan = install(&on(Distribution::K0s, "# k0s_managed=true\nversion = 2\n"), &wanted()).unwrap();
    let (path, text) = only(&plan);
    assert_eq!(path, "/etc/k0s/containerd.d/nucleus.toml");
    assert!(text.starts_with("version = 2\n"));
    assert!(!plan.restart);
}

#[test]
fn microk8s_gets_its_template_edited() {
    let plan = install(
        &on(Distribution::Microk8s, "version = 2\nroot = \"${SNAP_COMMON}/x\"\n"),
        &wanted(),
    )
    .unwrap();
    assert_eq!(
        only(&plan).0,
        "/var/snap/microk8s/current/args/containerd-template.toml"
    );
    assert!(plan.restart);
}

#[test]
fn what_cannot_be_done_is_refused_by_its_reason() {
    let of = |text: &str| install(&containerd(text), &wanted()).unwrap_err();
    assert!(matches!(of("version = "), PlanError::Broken { .. }));
    assert!(matches!(of("version = 9"), PlanError::Broken { .. }));
    assert!(matches!(
        of("disabled_plugins = [\"cri\"]"),
        PlanError::CriDisabled { .. }
    ));
    assert!(matches!(of("version = 2\nplugins = {}"), PlanError::NoRoom { .. }));
    let taken = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nucleus]\nruntime_type = 'x'";
    assert!(matches!(of(taken), PlanError::Taken { .. }));

    let facts = on(Distribution::K0s, "version = 2\n");
    assert!(matches!(
        install(&facts, &wanted()).unwrap_err(),
        PlanError::NotManaged { .. }
    ));
    let facts = Facts {
        config: None,
        ..on(Distribution::K3s, "")
    };
    assert!(matches!(
        install(&facts, &wanted()).unwrap_err(),
        PlanError::Missing { .. }
    ));
    let mut facts = on(Distribution::K3s, "version = 2\n");
    facts.templates = vec![file(
        "/x/config.toml.tmpl",
        "[plugins.\"x\".containerd.runtimes.\"nucleus\"]\n",
    )];
    assert!(matches!(
        install(&facts, &wanted()).unwrap_err(),
        PlanError::Taken { .. }
    ));
}

#[test]
fn of_two_releases_the_second_is_refused_and_takes_nothing_of_the_first_away() {
    let before = containerd("version = 2\n");
    let done = after(&before, &install(&before, &wanted()).unwrap());
    let second = Wanted {
        owner: "other/release".to_owned(),
        ..wanted()
    };
    let error = install(&done, &second).unwrap_err();
    assert!(error.to_string().contains("kube-system/nucleus"), "{error}");
    assert_eq!(uninstall(&done, "other/release"), Plan::default());
}
