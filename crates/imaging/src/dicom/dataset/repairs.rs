//! What was read although it is written wrongly: collected while a data set is used.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use dicom_core::Tag;

use super::plausible::name_of;

/// Most repairs that are kept: more say nothing new.
const MAX_REPAIRS: usize = 16;

/// The repairs of one data set and of every item in it: a header is parsed when it is asked, so
/// that only what mattered is collected.
#[derive(Debug, Clone, Default)]
pub(super) struct Repairs(Rc<RefCell<Vec<Repair>>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Repair {
    tag: Tag,
    fault: Cow<'static, str>,
}

impl Repairs {
    /// Adds what was wrong with an element, once.
    pub(super) fn add(&self, tag: Tag, fault: Cow<'static, str>) {
        let mut repairs = self.0.borrow_mut();
        let repair = Repair { tag, fault };
        if repairs.len() < MAX_REPAIRS && !repairs.contains(&repair) {
            repairs.push(repair);
        }
    }

    /// Returns one sentence for each fault, which names its elements.
    pub(super) fn details(&self) -> Vec<String> {
        let repairs = self.0.borrow();
        let mut sentences: Vec<(&str, String)> = Vec::new();
        for Repair { tag, fault } in repairs.iter() {
            let name = name_of(*tag);
            match sentences.iter_mut().find(|(known, _)| known == fault) {
                Some((_, names)) => *names = format!("{names}, {name}"),
                None => sentences.push((fault, name)),
            }
        }
        let sentence = |(fault, names)| format!("{names}: {fault}");
        sentences.into_iter().map(sentence).collect()
    }
}
