//! The table of functions that every Go program carries, stripped or not
//! (`.gopclntab`), in the form that it has had since Go 1.18.
//!
//! Its bytes come in, names and addresses go out. The form is that of
//! runtime/symtab.go (`type pcHeader`, `type functab`) and
//! runtime/runtime2.go (`type _func`). Nothing in it is believed: every offset is
//! checked against the table's length.

/// `abi.Go118PCLnTabMagic` and `abi.Go120PCLnTabMagic`: the two differ in names
/// of generated functions only.
const MAGICS: [u32; 2] = [0xffff_fff0, 0xffff_fff1];
/// Functions of one program: Kubernetes has some 200,000.
const FUNCTIONS_MAX: u64 = 16 << 20;
/// Longest name that is looked at, bytes; none of ours comes near.
const NAME_BYTES_MAX: usize = 256;

/// A function, by the file's own addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its first byte.
    pub start: u64,
    /// Where the next function begins.
    pub end: u64,
}

/// A table of functions.
#[derive(Clone, Copy, Debug)]
pub struct Functions<'a> {
    bytes: &'a [u8],
    text: u64,
    count: u64,
    names: u64,
    /// Where the list of functions begins, and from where their descriptions'
    /// offsets count.
    list: u64,
}

impl<'a> Functions<'a> {
    /// Reads the table's head. `text`: what the functions' offsets count from.
    /// `None` if it has another form.
    pub fn parse(bytes: &'a [u8], text: u64) -> Option<Functions<'a>> {
        let magic = u32_at(bytes, 0)?;
        // Two zeros, the size of an instruction, the size of a pointer.
        let [0, 0, _, 8] = u32_at(bytes, 4)?.to_le_bytes() else {
            return None;
        };
        let table = Functions {
            bytes,
            text,
            count: u64_at(bytes, 8)?,
            names: u64_at(bytes, 32)?,
            list: u64_at(bytes, 64)?,
        };
        (MAGICS.contains(&magic) && table.count <= FUNCTIONS_MAX).then_some(table)
    }

    /// Hands every function to `sink`, in the table's order, with its name. Those
    /// that cannot be read are passed over.
    pub fn each(&self, sink: &mut dyn FnMut(&str, Function)) {
        // Whatever the head claims, an entry takes eight bytes.
        let count = self.count.min(self.bytes.len() as u64 / 8);
        for index in 0..count {
            if let Some((name, function)) = self.function(index) {
                sink(name, function);
            }
        }
    }

    fn function(&self, index: u64) -> Option<(&'a str, Function)> {
        // An entry is an offset in the code and one to the description; behind
        // the last comes the offset of the code's end.
        let entry = self.list.checked_add(index.checked_mul(8)?)?;
        let start = u32_at(self.bytes, entry)?;
        let end = u32_at(self.bytes, entry.checked_add(8)?)?;
        // The description opens with the offset in the code, again, and that of
        // the name.
        let description = u32_at(self.bytes, entry.checked_add(4)?)?;
        let description = self.list.checked_add(u64::from(description))?;
        let again = u32_at(self.bytes, description)?;
        let name = u32_at(self.bytes, description.checked_add(4)?)?;
        if again != start || end <= start {
            return None;
        }
        let function = Function {
            start: self.text.checked_add(u64::from(start))?,
            end: self.text.checked_add(u64::from(end))?,
        };
        let name = usize::try_from(self.names.checked_add(u64::from(name))?).ok()?;
        let rest = self.bytes.get(name..)?;
        let rest = rest.get(..NAME_BYTES_MAX).unwrap_or(rest);
        let len = rest.iter().position(|byte| *byte == 0)?;
        Some((std::str::from_utf8(rest.get(..len)?).ok()?, function))
    }
}

fn u32_at(bytes: &[u8], offset: u64) -> Option<u32> {
    let rest = bytes.get(usize::try_from(offset).ok()?..)?;
    rest.first_chunk().copied().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: u64) -> Option<u64> {
    let rest = bytes.get(usize::try_from(offset).ok()?..)?;
    rest.first_chunk().copied().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A table as the linker lays it out: head, names, list, descriptions.
    fn table(functions: &[(String, u32)], end: u32) -> Vec<u8> {
        let mut names = Vec::new();
        let mut list = Vec::new();
        let mut descriptions = Vec::new();
        let list_len = (functions.len() * 8 + 4) as u32;
        for (name, start) in functions {
            list.extend(start.to_le_bytes());
            list.extend((list_len + descriptions.len() as u32).to_le_bytes());
            descriptions.extend(start.to_le_bytes());
            descriptions.extend((names.len() as u32).to_le_bytes());
            descriptions.extend([0xaa; 32]);
            names.extend(name.bytes());
            names.push(0);
        }
        list.extend(end.to_le_bytes());
        let mut bytes = MAGICS[1].to_le_bytes().to_vec();
        bytes.extend([0, 0, 1, 8]);
        let names_at = 72_u64;
        let list_at = names_at + names.len() as u64;
        for word in [functions.len() as u64, 1, 0, names_at, 0, 0, 0, list_at] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(names);
        bytes.extend(list);
        bytes.extend(descriptions);
        bytes
    }

    fn read(bytes: &[u8], text: u64) -> Option<Vec<(String, Function)>> {
        let mut found = Vec::new();
        Functions::parse(bytes, text)?
            .each(&mut |name, function| found.push((name.to_owned(), function)));
        Some(found)
    }

    #[test]
    fn other_forms_are_none() {
        let good = table(&[("main.main".into(), 0)], 64);
        assert!(read(&good, 0).is_some());
        for (at, value) in [(0, 0xfa), (3, 0), (4, 1), (7, 4)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(read(&bad, 0), None, "byte {at}");
        }
        assert_eq!(read(&good[..71], 0), None);
    }

    #[test]
    fn a_function_reaches_to_the_next() {
        let bytes = table(&[("a".into(), 0), ("b".into(), 32), ("c".into(), 96)], 128);
        let at = |start, end| Function { start, end };
        assert_eq!(
            read(&bytes, 4096),
            Some(vec![
                ("a".to_owned(), at(4096, 4128)),
                ("b".to_owned(), at(4128, 4192)),
                ("c".to_owned(), at(4192, 4224)),
            ])
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            steps in prop::collection::vec(("[a-z/.()*]{1,40}", 1_u32..10_000), 1..40),
            text in 0_u64..1 << 40,
        ) {
            let mut next = 0;
            let mut functions = Vec::new();
            for (name, len) in steps {
                functions.push((name, next));
                next += len;
            }
            let found = read(&table(&functions, next), text).unwrap_or_default();
            prop_assert_eq!(found.len(), functions.len());
            for ((name, start), (told, function)) in functions.iter().zip(&found) {
                prop_assert_eq!(name, told);
                prop_assert_eq!(text + u64::from(*start), function.start);
            }
            prop_assert_eq!(found.last().map(|last| last.1.end), Some(text + u64::from(next)));
        }

        #[test]
        fn any_bytes_are_survived(
            mut bytes in prop::collection::vec(any::<u8>(), 0..512),
            text: u64,
            changes in prop::collection::vec((0_usize..300, any::<u8>()), 0..20),
        ) {
            let _ = read(&bytes, text);
            let mut damaged = table(&[("a".into(), 0), ("bc".into(), 7)], 9);
            for (at, value) in changes {
                if let Some(byte) = damaged.get_mut(at) {
                    *byte = value;
                }
            }
            let _ = read(&damaged, text);
            bytes.splice(0..0, table(&[], 0));
            let _ = read(&bytes, text);
        }
    }
}
