#!/usr/bin/env python3
"""Parts of a Debian package that are made from files of the checkout.

    debian.py changelog CHANGELOG.md VERSION MAINTAINER EPOCH     the section of the version, in Debian's form
    debian.py license LICENSE                                     the license as a field of debian/copyright
"""
import email.utils
import re
import sys
import textwrap


def changelog(path, version, maintainer, epoch):
    with open(path, encoding="utf-8") as file:
        sections = re.split(r"^## ", file.read(), flags=re.M)[1:]
    found = [section for section in sections if section.split()[0] == version]
    if not found:
        sys.exit("%s has no section of version %s" % (path, version))
    entries = re.findall(r"^- (.*(?:\n  .*)*)", found[0], flags=re.M)
    if not entries:
        sys.exit("%s: the section of version %s has no entries" % (path, version))
    print("cfsoci (%s) unstable; urgency=medium\n" % version)
    for entry in entries:
        print(textwrap.fill(" ".join(entry.split()), 78, initial_indent="  * ", subsequent_indent="    ", break_on_hyphens=False))
    print("\n -- %s  %s" % (maintainer, email.utils.formatdate(int(epoch))))


def license_field(path):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    name = "Apache-2.0" if "Apache License" in text else "MIT" if "MIT" in text else "other"
    if name == "Apache-2.0":
        print(name + "\n On Debian systems, the text of this license is in\n /usr/share/common-licenses/Apache-2.0.")
    else:
        print(name + "\n" + "\n".join(" " + (line.rstrip() or ".") for line in text.strip().splitlines()))


{"changelog": changelog, "license": license_field}[sys.argv[1]](*sys.argv[2:])
