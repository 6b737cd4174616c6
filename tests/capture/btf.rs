//! A reader of BTF that knows as much as two questions need: has this struct that member, and where does it stand.

use std::collections::BTreeMap;

const STRUCT: u32 = 4;
const UNION: u32 = 5;

#[derive(Debug)]
enum Type {
    /// Name, size, members (name, type, offset in bits).
    Composite(String, u32, Vec<(String, u32, u32)>),
    /// Typedef, const, volatile: the type behind it.
    Alias(String, u32),
    Other,
}

pub struct Btf {
    types: Vec<Type>,
    /// Names of functions.
    pub functions: Vec<String>,
    /// Constants of enumerations.
    pub enumerators: BTreeMap<String, i32>,
}

impl Btf {
    /// The running kernel's, or another kernel's in the file that `ASSAY_GATES_KERNEL_BTF` names.
    pub fn of_kernel() -> Self {
        let file =
            std::env::var_os("ASSAY_GATES_KERNEL_BTF").unwrap_or_else(|| "/sys/kernel/btf/vmlinux".into());
        Self::parse(&std::fs::read(file).unwrap())
    }

    /// The `.BTF` section of an ELF object.
    pub fn of_object(elf: &[u8]) -> Self {
        let u16_at = |at: usize| usize::from(u16::from_le_bytes(elf[at..at + 2].try_into().unwrap()));
        let u32_at = |at: usize| u32::from_le_bytes(elf[at..at + 4].try_into().unwrap()) as usize;
        let u64_at = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().unwrap()) as usize;
        let (table, size, count, names) = (u64_at(40), u16_at(58), u16_at(60), u16_at(62));
        let section = |index: usize| {
            let at = table + index * size;
            (u32_at(at), u64_at(at + 24), u64_at(at + 32))
        };
        let names = section(names).1;
        let found =
            (0..count).map(section).find(|(name, ..)| elf[names + name..].starts_with(b".BTF\0")).unwrap();
        Self::parse(&elf[found.1..found.1 + found.2])
    }

    fn parse(data: &[u8]) -> Self {
        let u32_at = |at: usize| u32::from_le_bytes(data[at..at + 4].try_into().unwrap());
        assert_eq!(u32_at(0) & 0xffff, 0xeb9f, "BTF magic");
        let header = u32_at(4) as usize;
        let (types_at, types_size) = (header + u32_at(8) as usize, u32_at(12) as usize);
        let strings = header + u32_at(16) as usize;
        let name = |offset: u32| {
            let bytes = &data[strings + offset as usize..];
            String::from_utf8_lossy(&bytes[..bytes.iter().position(|byte| *byte == 0).unwrap()]).into_owned()
        };
        let mut types = vec![Type::Other]; // void
        let (mut functions, mut enumerators) = (Vec::new(), BTreeMap::new());
        let mut at = types_at;
        while at < types_at + types_size {
            let (name_offset, info, size) = (u32_at(at), u32_at(at + 4), u32_at(at + 8));
            let (kind, count, bitfields) = (info >> 24 & 0x1f, (info & 0xffff) as usize, info >> 31 == 1);
            at += 12;
            let extra = match kind {
                1 | 14 | 17 => 4,
                3 => 12,
                STRUCT | UNION | 15 | 19 => 12 * count,
                6 | 13 => 8 * count,
                _ => 0,
            };
            if kind == 12 {
                functions.push(name(name_offset));
            }
            if kind == 6 {
                let one =
                    |index: usize| (name(u32_at(at + 8 * index)), u32_at(at + 8 * index + 4).cast_signed());
                enumerators.extend((0..count).map(one));
            }
            types.push(match kind {
                STRUCT | UNION => {
                    let member = |index: usize| {
                        let at = at + 12 * index;
                        let offset = u32_at(at + 8);
                        (
                            name(u32_at(at)),
                            u32_at(at + 4),
                            if bitfields { offset & 0xff_ffff } else { offset },
                        )
                    };
                    Type::Composite(name(name_offset), size, (0..count).map(member).collect())
                }
                8..=11 | 18 => Type::Alias(name(name_offset), size),
                _ => Type::Other,
            });
            at += extra;
        }
        Self { types, functions, enumerators }
    }

    /// Size and members (name to offset in bytes) of a struct or of a typedef of one; anonymous members are looked into.
    pub fn composite(&self, wanted: &str) -> Option<(u32, BTreeMap<String, u32>)> {
        self.types.iter().find_map(|one| match one {
            Type::Composite(name, size, members) if name == wanted && !members.is_empty() => {
                let mut found = BTreeMap::new();
                self.collect(members, 0, &mut found);
                Some((*size, found))
            }
            Type::Alias(name, to) if name == wanted => match &self.types[*to as usize] {
                Type::Composite(_, size, members) => {
                    let mut found = BTreeMap::new();
                    self.collect(members, 0, &mut found);
                    Some((*size, found))
                }
                _ => None,
            },
            _ => None,
        })
    }

    fn collect(&self, members: &[(String, u32, u32)], base: u32, found: &mut BTreeMap<String, u32>) {
        for (name, type_id, offset) in members {
            let offset = base + offset / 8;
            if !name.is_empty() {
                found.insert(name.clone(), offset);
            } else if let Type::Composite(_, _, inner) = &self.types[*type_id as usize] {
                self.collect(inner, offset, found);
            }
        }
    }
}
