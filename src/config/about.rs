//! What every merge method does, in a sentence, and where it comes from.

use super::Method;

/// A method in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// What it does.
    pub summary: &'static str,
    /// The paper, or the program that had it first.
    pub reference: &'static str,
}

impl Method {
    /// The method in words.
    pub fn about(self) -> About {
        let (summary, reference) = match self {
            Self::Linear => ("weighted average of all inputs", "Wortsman et al. 2022, Model soups, arXiv:2203.05482"),
            Self::TaskArithmetic => (
                "the base plus weighted task vectors (what each model differs by from the base)",
                "Ilharco et al. 2022, Editing Models with Task Arithmetic, arXiv:2212.04089",
            ),
            Self::Ties => (
                "task vectors trimmed to their largest entries; of each element, those that go against the elected sign are left out",
                "Yadav et al. 2023, TIES-Merging, arXiv:2306.01708",
            ),
            Self::DareLinear => (
                "task vectors with entries dropped at random and the rest rescaled",
                "Yu et al. 2023, Language Models are Super Mario, arXiv:2311.03099",
            ),
            Self::DareTies => (
                "task vectors with entries dropped at random and the rest rescaled, then an election of signs as in TIES",
                "Yu et al. 2023, arXiv:2311.03099; Yadav et al. 2023, arXiv:2306.01708",
            ),
            Self::Breadcrumbs => (
                "task vectors without their largest and their smallest entries",
                "Davari and Belilovsky 2023, Model Breadcrumbs, arXiv:2312.06795",
            ),
            Self::BreadcrumbsTies => (
                "task vectors without their largest and their smallest entries, then an election of signs as in TIES",
                "Davari and Belilovsky 2023, arXiv:2312.06795; Yadav et al. 2023, arXiv:2306.01708",
            ),
            Self::Della => (
                "task vectors with entries dropped at random, large ones less often, then an election of signs",
                "Deep et al. 2024, DELLA-Merging, arXiv:2406.11617",
            ),
            Self::DellaLinear => (
                "task vectors with entries dropped at random, large ones less often",
                "Deep et al. 2024, DELLA-Merging, arXiv:2406.11617",
            ),
            Self::Slerp => (
                "spherical interpolation of whole tensors; linear where their cosine exceeds 0.9995",
                "Shoemake 1985, Animating rotation with quaternion curves; mergekit",
            ),
            Self::Nuslerp => (
                "spherical interpolation of two task vectors, or of two tensors where there is no base",
                "mergekit (nuslerp)",
            ),
            Self::Passthrough => ("one input, copied or scaled", "mergekit (passthrough)"),
            Self::ArceeFusion => (
                "the base with those elements of the other whose importance is high",
                "Arcee Fusion, mergekit (arcee_fusion)",
            ),
            Self::Multislerp => {
                ("weighted spherical mean of several tensors in one tangent space", "mergekit (multislerp)")
            }
            Self::Karcher => ("Riemannian (Karcher) mean of tensors on the sphere", "mergekit (karcher)"),
            Self::ModelStock => (
                "towards the average of the models, as far as their task vectors agree",
                "Jang et al. 2024, Model Stock, arXiv:2403.19522",
            ),
            Self::Nearswap => ("the base pulled to the other where the two are near", "mergekit (nearswap)"),
            Self::Sce => (
                "task vectors selected by variance, weighted by energy, without minority signs",
                "Wan et al. 2024, FuseChat, arXiv:2408.07990",
            ),
            Self::Ram => ("mean of the task vectors over the models that change an element", "mergekit (ram)"),
            Self::RamplusTl => ("ram, with elements that one model alone changes scaled up", "mergekit (ramplus_tl)"),
        };
        About { summary, reference }
    }
}
