//! The container task that makes a backup for which a Lambda function does not have the time.

use super::Reader;
use crate::settings::ContainerTask;

/// The task's settings that have no default.
const NEEDED: [&str; 3] = ["BACKUP_ECS_CLUSTER", "BACKUP_ECS_TASK_DEFINITION", "BACKUP_ECS_SUBNETS"];

impl Reader<'_> {
    pub(super) fn handover(&mut self) -> Option<ContainerTask> {
        let wanted = self.choice("BACKUP_HANDOVER", &[("ecs", true), ("none", false)]);
        let cluster = self.text("BACKUP_ECS_CLUSTER");
        let definition = self.text("BACKUP_ECS_TASK_DEFINITION");
        let container = self.text("BACKUP_ECS_CONTAINER");
        let subnets = self.names("BACKUP_ECS_SUBNETS");
        let security_groups = self.names("BACKUP_ECS_SECURITY_GROUPS");
        let public_ip = self.switch("BACKUP_ECS_ASSIGN_PUBLIC_IP").unwrap_or(false);
        if wanted != Some(true) {
            return None;
        }
        for name in NEEDED.iter().filter(|name| self.values.get(name).is_none()) {
            self.problems
                .add(format!("{name} is not set, but BACKUP_HANDOVER=ecs needs it"));
        }
        Some(ContainerTask {
            cluster: cluster?,
            definition: definition?,
            container: container.unwrap_or_else(|| "pgstow".to_owned()),
            subnets: subnets?,
            security_groups: security_groups.unwrap_or_default(),
            public_ip,
        })
    }

    /// Names separated by commas.
    fn names(&mut self, variable: &str) -> Option<Vec<String>> {
        self.read(variable, |text| {
            let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
            let odd = |name: &String| name.is_empty() || name.chars().any(|c| !c.is_ascii_graphic());
            if names.iter().any(odd) {
                return Err("expected names separated by commas");
            }
            Ok(names)
        })
    }
}
