"""What is asked of python-btrfs and of ours, and how an answer becomes JSON.

A question is a line of Python. `PROBE` is run where `import btrfs` means one or the other library;
it holds what a question may use, and takes the results apart.
"""

from __future__ import annotations

PROBE = """
import contextlib, io, itertools, os, random, types, uuid
from collections.abc import Iterator, Sequence
import btrfs
from btrfs import crc32c, ctree, free_space_tree, fs_usage, ioctl, utils, volumes
from btrfs.ctree import DiskKey, FileSystem, Key, classify
from btrfs.ioctl import SearchHeader

def told(value):
    "Return a value as JSON can have it: of an object, all that it says about itself."
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, Key):
        return [type(value).__name__, str(value), value.key]
    if isinstance(value, dict):
        return {str(key): told(inside) for key, inside in value.items()}
    if isinstance(value, (tuple, list, Iterator)):
        return [told(element) for element in value]
    answer = {"class": type(value).__name__, "str": guarded(str, value)}
    answer["attributes"] = {
        name: inside for name in names(value)
        for inside in [guarded(getattr, value, name)] if inside is not METHOD
    }
    if isinstance(value, Sequence):
        answer["elements"] = [told(element) for element in value]
    return answer

NAMES = {}
METHOD = object()

def names(value):
    "Return the names of all public attributes; dir() would take most of the time."
    kind = type(value), tuple(getattr(value, "__dict__", ()))
    if kind not in NAMES:
        NAMES[kind] = [name for name in dir(value) if not name.startswith("_")]
    return NAMES[kind]

def guarded(function, *args, **keywords):
    "Call a function and return what is told of its result, or what it raised."
    try:
        result = function(*args, **keywords)
        return METHOD if callable(result) else told(result)
    except Exception as error:
        return raised(error)

def raised(error):
    kinds = [cls.__name__ for cls in type(error).__mro__]
    return {"raises": kinds[0], "kinds": kinds, "message": str(error),
            "errno": getattr(error, "errno", None), "state": getattr(error, "state", None)}

def every(function, *columns):
    "Call a function with all combinations of arguments."
    return [guarded(function, *args) for args in itertools.product(*columns)]

def printed(function, value):
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        function(value)
    return text.getvalue()

def whole(value):
    "Return what is told of a value, and what is printed of it; of many, one by one."
    if isinstance(value, (list, Iterator)):
        return [whole(element) for element in value]
    return {"value": told(value), "pretty": guarded(printed, utils.pretty_print, value),
            "printed": guarded(printed, utils.str_print, value)}

def item(header, data):
    "Return what is told of an item, even if that makes classify() fail."
    try:
        return whole(classify(header, data))
    except Exception as error:
        return raised(error)

def ask(questions, scope, function):
    answers = {}
    for question in questions.strip().splitlines():
        try:
            answers[question] = function(eval(question, globals(), scope))
        except Exception as error:
            answers[question] = raised(error)
    return answers
"""

ASK_FILESYSTEM = f"""{PROBE}
def asked(path, methods, ioctls, trees):
    with FileSystem(path) as fs:
        fd = fs.fd
        extents = list(fs.extents())
        groups = list(fs.block_groups())
        vaddrs = [extent.vaddr for extent in extents[:: len(extents) // 12]]
        middle = groups[len(groups) // 2].vaddr
        generation = fs.top_level().generation
        scope = dict(locals())
        globals().update(scope)
        answers = ask(methods, scope, whole)
        answers.update(ask(ioctls, scope, told))
        for tree in map(int, trees.split()):
            answers[f"items of tree {{tree}}"] = [
                [told(header), item(header, data)] for header, data in ioctl.search_v2(fd, tree)
            ]
        return answers
answer = asked(*args)
"""

# Values for questions that need no filesystem.
FOR_FUNCTIONS = """
PROFILES = [type_ | profile for type_ in (1, 2, 4, 5)
            for profile in (0, 8, 16, 32, 64, 128, 256, 512, 1024)]
CHUNKS = [types.SimpleNamespace(type=flags, num_stripes=stripes, length=stripes << 30)
          for flags in PROFILES for stripes in (4, 6, 10)]
OBJECTIDS = [Key(objectid, type_, offset)
             for type_ in (1, 48, 132, 144, 204, 216, 228, 246, 248, 249)
             for objectid in (*range(14), *range(-14, 0), 255, 256, 257, 1 << 48)
             for offset in (0, 5, 256, 1 << 48, -1, -9)]
TYPES = [Key(1, type_, 2) for type_ in range(256)]
CONTAINERS = [[], [1, 2], {}, {"a": 1, "b": [1, 2]}, {"a": {"b": Key(5, 1, 9)}}, "text", 5, None,
              [Key(5, 1, 9)], {1: b"bytes"}, [[1], [2, [3]], {}], b"bytes", (), (1, Key(5, 1, 9)),
              {1}, uuid.UUID(int=5), True]
"""

ASK = f"""{PROBE}{FOR_FUNCTIONS}
answer = ask(args[0], {{}}, told)
answer.update(ask(args[1], {{}}, whole))
"""

# FileSystem's own methods. fd, extents, groups, vaddrs, middle: see above.
METHODS = """
fs.devices()
fs.devices(2)
fs.devices(1, 1)
fs.devices(min_devid=2, max_devid=3)
fs.dev_extents()
fs.dev_extents(2)
fs.dev_extents(1, 1)
fs.chunks()
fs.chunks(middle)
fs.chunks(0, middle)
fs.chunks(middle + 1, nr_items=1)
fs.chunks(nr_items=0)
fs.chunks(nr_items=2)
fs.chunks(nr_items=1000)
fs.block_groups()
fs.block_groups(middle)
fs.block_groups(0, middle)
fs.block_groups(middle + 1, nr_items=1)
fs.block_groups(nr_items=2)
[fs.block_group(group.vaddr) for group in groups]
[fs.block_group(group.vaddr, group.length) for group in groups]
fs.block_group(middle, 4096)
fs.block_group(12345)
fs.block_group(12345, 4096)
fs.extents(vaddrs[6])
fs.extents(load_data_refs=True, load_metadata_refs=True)
fs.extents(vaddrs[3], vaddrs[5], True)
fs.extents(vaddrs[3] + 1, vaddrs[5] - 1, False, True)
fs.free_space_extents()
fs.free_space_extents(middle)
fs.free_space_extents(max_vaddr=middle)
fs.top_level()
fs.subvolumes()
fs.subvolumes(257, 258)
fs.subvolumes(min_id=1 << 40)
fs.orphan_subvol_ids()
fs.fs_info()
[fs.dev_info(device.devid) for device in fs.devices()]
[fs.dev_stats(device.devid) for device in fs.devices()]
fs.dev_info(77)
fs.dev_stats(77)
fs.space_info()
fs.features()
fs.mixed_groups()
fs.usage()
fs_usage.FsUsage(fs, data_metadata_ratio=50)
fs_usage.FsUsage(fs, target_profile_metadata=ctree.BLOCK_GROUP_DUP)
fs_usage.FsUsage(fs, None, None, ctree.BLOCK_GROUP_RAID1)
[fs_usage.DevUsage(device) for device in fs.devices()]
[fs_usage.RawSpaceUsage(space) for space in fs.space_info()[:3]]
[fs_usage.VirtualSpaceUsage(space) for space in fs.space_info()[:3]]
fs.search(2, Key(vaddrs[2], 0, 0), Key(vaddrs[4], -1, -1))
fs.search(3, max_key=Key(1, 216, 1))
fs.search(4, Key(1, 204, 0))
fs.search(0, Key(256, 0, 0), Key(260, 255, -1))
fs.search(5, Key(256, 96, 0), Key(256, 96, -1))
fs.search(-9)
fs.search(999)
"""

IOCTLS = """
ioctl.fs_info(fd)
ioctl.dev_info(fd, 1)
ioctl.dev_info(fd, 0)
ioctl.dev_stats(fd, 1)
ioctl.dev_stats(fd, 0)
ioctl.space_info(fd)
ioctl.get_features(fd)
ioctl.search(fd, 1)
ioctl.search(fd, 3)
ioctl.search(fd, 5, Key(256, 0, 0), Key(300, 0, 0))
ioctl.search(fd, 5)
ioctl.search(fd, 2, Key(vaddrs[1], 0, 0), None, nr_items=7)
ioctl.search(fd, 2, min_transid=1, max_transid=generation - 1, nr_items=50)
ioctl.search(fd, 2, min_transid=generation, nr_items=50)
ioctl.search(fd, 2, min_transid=1 << 40)
ioctl.search(fd, 2, Key(9, 0, 0), Key(8, 0, 0))
ioctl.search(fd, 0, Key(256, 0, 0), nr_items=3)
ioctl.search(fd, 1, nr_items=0)
ioctl.search(fd, 999)
ioctl.search(-1, 1)
ioctl.search_v2(fd, 1)
ioctl.search_v2(fd, 1, nr_items=0)
ioctl.search_v2(fd, 1, nr_items=1)
ioctl.search_v2(fd, 5, Key(256, 1, 0), nr_items=100, buf_size=4096)
ioctl.search_v2(fd, 5, Key(256, 1, 0), nr_items=100, buf_size=500)
ioctl.search_v2(fd, 5, Key(256, 1, 0), nr_items=100, buf_size=40)
ioctl.search_v2(fd, 5, Key(256, 1, 0), nr_items=100, buf_size=0)
ioctl.search_v2(fd, 3, buf_size=1 << 20)
ioctl.search_v2(fd, 4, buf_size=1 << 25)
ioctl.search_v2(fd, 5, max_key=Key(256, -1, -1), buf_size=65536)
ioctl.search_v2(fd, 2, None, Key(vaddrs[2], 168, -1), 0, generation - 1)
ioctl.search_v2(fd, 2, Key(vaddrs[2], 168, 1), Key(vaddrs[6], 168, -1), min_transid=9)
ioctl.search_v2(fd, 2, min_transid=1 << 40)
ioctl.search_v2(fd, 2, Key(9, 0, 0), Key(8, 0, 0))
ioctl.search_v2(fd, 0, Key(256, 0, 0), Key(256, -1, -1))
ioctl.search_v2(fd, 999)
ioctl.search_v2(-1, 1)
every(ioctl.logical_ino, [fd], vaddrs, [16, 64, 4096, 1 << 16, 1 << 20])
every(ioctl.logical_ino, [fd], [vaddr + 4096 for vaddr in vaddrs])
every(ioctl.logical_ino_v2, [fd], vaddrs, [16, 64, 4096, 1 << 20], [0, 1])
every(ioctl.logical_ino_v2, [fd], vaddrs[:1], [1 << 24, 1 << 25])
every(ioctl.logical_ino_v2, [fd], [vaddr + 4096 for vaddr in vaddrs], [4096], [False, True])
every(ioctl.logical_to_ino, [fd], vaddrs[-2:])
every(ioctl.logical_to_ino_v2, [fd], vaddrs[-2:])
every(ioctl.logical_ino, [fd], [0, 12345, 1 << 62], [4096])
every(ioctl.logical_ino_v2, [fd], [0, 12345, 1 << 62], [4096])
every(ioctl.ino_lookup, [fd], [0, 5, 256, 999], [256, 257, 258, 300, 1 << 40])
ioctl.ino_lookup(fd)
ioctl.balance_progress(fd)
every(lambda value: printed(utils.pretty_print, value), [fs.devices(), fs.subvolumes()])
every(lambda value: printed(utils.str_print, value), [fs.devices(), fs.subvolumes()])
every(volumes.chunk_to_dev_extent_length, fs.chunks())
every(volumes.chunk_to_raw_parity_bytes, fs.chunks())
[path for path in utils.mounted_filesystem_paths() if path == fs.path]
fs.sync()
(fs.path, fs.fsid, fs.nodesize, fs.sectorsize)
"""

# Functions that need no filesystem.
SIZES = "[0, 1, 1023, 1024, 1535, 10**6, (1 << 30) - 1, 5 << 40, 1 << 63, 1 << 70, -5, -(3 << 20)]"
FLAGS = "[0, 1, 2, 3, 4, 5, 7, 8, 0x11, 0x24, 0x45, 0x105, 0x201, 0x404, 0x81, 1 << 48, 1 << 49, "
FLAGS += "(1 << 49) | 4, 0x18, 0x7f8, 1 << 11, (1 << 64) - 1]"
KEYS = "[Key(2, 'ROOT_ITEM', 0), Key(-9, 132, 5), Key(-8, 132, 7), Key(0, 0, 0), Key(-1, -1, -1), "
KEYS += "Key(256, 0, 7)]"
FUNCTIONS = f"""
every(utils.pretty_size, {SIZES}, [None, '', 'k', 'K', 'M', 'g', 'T', 'P', 'E', 'x'], [True, False])
every(utils.pretty_size, {SIZES})
every(utils.parse_pretty_size, '0 1 10 1k 1K 1KiB 1kB 3M 4MiB 5G 10GiB 2T 1P 7E 4EiB 12B'.split())
every(utils.parse_pretty_size, ['', 'x', '1.5G', '-1', '1X', '1GG', 'G'])
every(utils.block_group_flags_str, {FLAGS})
every(utils.block_group_type_str, {FLAGS})
every(utils.block_group_profile_str, {FLAGS})
every(utils.space_type_description, {FLAGS})
every(utils.space_profile_description, {FLAGS})
every(utils.space_flags_description, {FLAGS})
every(utils.flags_str, {FLAGS}, [{{}}, {{1: 'one', 2: 'two', 4: 'four'}}])
every(utils.extent_flags_str, [*range(8), 256, 257, 1 << 40])
every(utils.inode_flags_str, [0, *[1 << bit for bit in range(40)], 0xfff, 0x80000000, 3])
every(utils.root_item_flags_str, [0, 1, 2, 3, 1 << 48, (1 << 48) + 1])
every(utils.free_space_info_flags_str, [0, 1, 2, 3])
every(utils.compress_type_str, range(6))
every(utils.file_extent_type_str, range(6))
every(utils.dir_item_type_str, range(12))
every(utils.inode_mode_str, [0, 0o100644, 0o40755, 0o120777, 0o20666, 0o104755, 7, 0o777777777])
every(utils.embedded_text_for_str, [b'', b'abc', b'\\xff', b"'", b'a\\nb', 'ä☃'.encode(), b'\\0'])
every(utils.parse_tree_name, '1 2 3 0 5 256 root ROOT ROOT_TREE root_tree extent Chunk dev'.split())
every(utils.parse_tree_name, 'fs csum quota uuid free_space -9 -1 data_reloc tree_log 0x10'.split())
every(utils.parse_tree_name, ['', 'foo', 'block_group', 'TREE', 'ROOT_TREE_TREE', 'tree_reloc'])
every(utils.parse_key_string, ['(1 2 3)', '1 2 3', '(EXTENT_TREE ROOT_ITEM 0)', '0 0 0'])
every(utils.parse_key_string, ['-1 -1 -1', '-1 255 -1', '(-1 -1 -4095)'])
every(utils.parse_key_string, ['256 INODE_REF 256', '(DEV_ITEMS DEV_ITEM 4)', '(-9 ROOT_ITEM 0)'])
every(utils.parse_key_string, ['0/256 QGROUP_RELATION 1/5', '(0 QGROUP_INFO 0/5)'])
every(utils.parse_key_string, ['0x0000000000000005 UUID_KEY_SUBVOL 0x0000000000000007'])
every(utils.parse_key_string, ['(FREE_SPACE UNTYPED 5)', '(EXTENT_CSUM EXTENT_CSUM 1)'])
every(utils.parse_key_string, ['1 228 256', '5 XATTR_ITEM 7'])
every(utils.parse_key_string, ['', '1 2', '1 2 3 4', '1 BOGUS 2', 'FIRST 1 2', '1 1 x'])
every(volumes.block_group_profile_ncopies, [flag for flag in {FLAGS} if flag != 0x18])
every(volumes.chunk_length_to_dev_extent_length, PROFILES, range(4, 13, 2), [1 << 30, 3 << 26])
every(volumes.dev_extent_length_to_chunk_length, PROFILES, range(4, 13, 2), [1 << 30, 3 << 26])
every(volumes.chunk_length_to_dev_extent_length, [0, 1, 4], [1], [8 << 20])
every(volumes.dev_extent_length_to_chunk_length, [0, 1, 4], [1], [8 << 20])
every(volumes.chunk_to_dev_extent_length, CHUNKS)
every(volumes.chunk_to_raw_parity_bytes, CHUNKS)
every(crc32c.crc32c, [0, 1, 0xfffffffe, 0xffffffff, 12345], [b'', b'abc', bytes(100), b'x' * 5000])
every(crc32c.crc32c_data, [b'', b'abc', bytes(100), b'x' * 5000])
every(crc32c.name_hash, ['', 'default', 'Überraschung', b'default', b'\\xff', 'n' * 255])
every(crc32c.extref_hash, [0, 256, 1 << 31, (1 << 32) + 5], ['', 'abc', b'abc', b'\\xff', 'ä'])
every(str, {KEYS})
every(repr, {KEYS})
every(Key, [0, 5, -1, 1 << 63], [0, 84, 'DIR_ITEM', 'EXTENT_DATA', 255, -1], [0, 7, -1, -4095])
every(Key, [0], [1 << 8, 'BOGUS'], [0])
every(lambda key, other: [key < other, key <= other, key == other], {KEYS}, {KEYS})
every(lambda key, other: [key > other.key, key >= other.key, key != other.key], {KEYS}, {KEYS})
every(lambda key, amount: [key + amount, key - amount], {KEYS}, [0, 1, 255, 1 << 64, 1 << 72])
every(lambda key: [key.objectid, key.type, key.offset, key.key], {KEYS})
every(lambda data: DiskKey(data), [bytes(range(17)), bytes(range(40)), b'\\xff' * 17])
every(str, OBJECTIDS)
every(str, TYPES)
every(ctree.qgroup_level, [0, 5, 1 << 48, (3 << 48) + 5, (1 << 64) - 1])
every(ctree.qgroup_subvid, [0, 5, 1 << 48, (3 << 48) + 5, (1 << 64) - 1])
every(ctree.ULL, [0, -1, 1 << 63, (1 << 64) - 1])
every(ctree.U8, [0, -1, 255])
every(lambda value: printed(utils.pretty_print, value), CONTAINERS)
every(lambda value: printed(utils.str_print, value), CONTAINERS)
"""

# Objects, which are printed as well.
OBJECTS = """
[fs_usage.BlockGroupTypeUsage(flags) for flags in (1, 2, 4, 5)]
[fs_usage.VirtualBlockGroupTypeUsage(flags) for flags in (1, 2, 4, 5)]
[fs_usage.DevSpaceUsage(1, flags) for flags in (1, 0x11, 0x104)]
free_space_tree.FreeSpaceExtent(5, 4096)
ioctl.FeatureFlags(0, 3, 0x341)
ioctl.FeatureFlags(1, 1 << 40, 1 << 50)
ioctl.FileDedupeRangeInfo(3, 4096)
ioctl.SpaceInfo(bytes(range(24)), 0)
ioctl.Inode(1, 2, 3)
ioctl.InoLookupResult(5, b'abc/')
"""

# Items of no real filesystem: every type of key, with bytes that stand for nothing.
BODIES = f"""{PROBE}
choose = random.Random(1)
answer = []
for type_ in map(int, args[0].split()):
    for objectid, offset in ((256, 7), (0, 1), ((1 << 64) - 5, 4096), ((1 << 64) - 4, 0)):
        for size in (0, 7, 8, 10, 16, 17, 18, 21, 24, 30, 40, 48, 53, 80, 98, 112, 160, 239, 439):
            for body in (bytes(size), choose.randbytes(size)):
                header = SearchHeader(3, objectid, offset, type_, size)
                answer.append([list(header), item(header, body)])
answer = {{"no real items": answer}}
"""

# A balance in one of its states: nothing of this changes it.
BALANCE = f"""{PROBE}
fd = os.open(args[0], os.O_RDONLY)
answer = ask(args[1], {{}}, told)
"""
BALANCING = """
ioctl.balance_progress(fd).state
ioctl.balance_progress(fd).state_str
"""
STARTING = """
ioctl.balance_v2(fd, ioctl.BalanceArgs(vstart=1, vend=2))
"""
NOT_BALANCING = """
ioctl.balance_progress(fd)
ioctl.balance_ctl(fd, ioctl.BALANCE_CTL_PAUSE)
ioctl.balance_ctl(fd, ioctl.BALANCE_CTL_CANCEL)
ioctl.balance_v2(fd, resume=True)
"""
