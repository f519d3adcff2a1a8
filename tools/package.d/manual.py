#!/usr/bin/env python3
"""Writes the manual pages of the commands, from the description that the argument parser has of them.

    manual.py CFSOCI FOLDER DATE
    manual.py CFSOCI --markdown      prints the reference of all commands and options, CommandReference.md of the documentation

FOLDER gets cfsoci-COMMAND.1 for each command, with those below it in the same page, and cfsoci.1: the overview cfsoci.1.in with the table of commands
and the global options. DATE is shown at the foot of the pages. The plugin of the parser is not used: its pages repeat the global options in every
command, show no examples, and need a tool that links Foundation.
"""
import json
import os
import re
import subprocess
import sys

program = sys.argv[1]
folder, date = (None, None) if sys.argv[2:] == ["--markdown"] else sys.argv[2:]
here = os.path.dirname(os.path.realpath(__file__))
root = json.loads(subprocess.run([program, "--experimental-dump-help"], check=True, capture_output=True).stdout)["command"]
release = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout.strip()


def escaped(text):
    """Text for roff: no requests, and hyphens that can be searched for and copied."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "\\&...")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.M)


def paragraphs(text):
    """Text with `code` in bold, one paragraph after the other."""
    parts = []
    for paragraph in text.strip().split("\n\n"):
        words = escaped(" ".join(paragraph.split()))
        parts.append(re.sub(r"`([^`]+)`", r"\\fB\1\\fR", words))
    return "\n.PP\n".join(parts)


def spelled(argument):
    names = sorted((("-" if n["kind"] == "short" else "--") + n["name"] for n in argument.get("names") or []), key=len)
    value = argument.get("valueName", "")
    if not names:
        return "\\fI" + escaped(value.upper()) + "\\fR"
    text = ", ".join("\\fB" + escaped(name) + "\\fR" for name in names)
    return text + (" \\fI" + escaped(value) + "\\fR" if argument["kind"] == "option" else "")


def key(argument):
    return tuple(sorted(n["name"] for n in argument.get("names") or [])) or argument.get("valueName")


everywhere = {key(argument) for argument in root["arguments"]} | {("help", "h"), ("h", "help"), ("version",)}


def own(command):
    """The arguments of a command itself, in sections."""
    sections = {}
    for argument in command.get("arguments") or []:
        if argument.get("shouldDisplay", True) and key(argument) not in everywhere:
            title = "ARGUMENTS" if argument["kind"] == "positional" else (argument.get("sectionTitle") or "Options").upper()
            sections.setdefault(title, []).append(argument)
    return sections


def entry(argument):
    text = argument.get("abstract", "")
    values = argument.get("allValues") or []
    if values and argument["kind"] == "option":
        text += " Values: " + ", ".join(values) + "."
    if argument.get("defaultValue") and argument["kind"] == "option":
        text += " Default: " + argument["defaultValue"] + "."
    lines = [".TP", spelled(argument), paragraphs(text)]
    if argument.get("discussion"):
        lines += [".RS", ".PP", paragraphs(argument["discussion"]), ".RE"]
    return lines


def synopsis(path, command):
    parts = ["\\fB" + escaped(path) + "\\fR"]
    if any(argument["kind"] != "positional" for argument in command.get("arguments") or []):
        parts.append("[\\fIoptions\\fR]")
    for argument in command.get("arguments") or []:
        if argument["kind"] == "positional":
            text = spelled(argument) + (" ..." if argument.get("isRepeating") else "")
            parts.append("[" + text + "]" if argument.get("isOptional") else text)
    return " ".join(parts)


def help_of(words):
    return subprocess.run([program, *words, "--help"], check=True, capture_output=True, text=True).stdout


def examples(words, discussion):
    """Those of the help, and those at the end of the description."""
    found = re.findall(r"^Example: (cfsoci .*)$", discussion, flags=re.M)
    text = help_of(words)
    if "\nEXAMPLES:\n" in text:
        found += [line.strip() for line in text.split("\nEXAMPLES:\n")[1].splitlines() if line.strip()]
    return found


def described(words, command, level):
    """Description, arguments, options and examples of one command. Those of a subcommand are a level lower."""
    heading = ".SH " if level == 0 else ".SS "
    discussion = command.get("discussion") or ""
    body = re.sub(r"^Example: .*$", "", discussion, flags=re.M).strip()
    lines = []
    if level == 0:
        lines += [".SH DESCRIPTION", paragraphs(command["abstract"])]
    else:
        lines += [".SH " + escaped("cfsoci " + " ".join(words)).upper(), synopsis("cfsoci " + " ".join(words), command), ".PP", paragraphs(command["abstract"])]
    if body:
        lines += [".PP", paragraphs(body)]
    for title, arguments in own(command).items():
        lines.append(heading + title)
        for argument in arguments:
            lines += entry(argument)
    shown = examples(words, discussion)
    if shown:
        lines += [heading + ("EXAMPLES" if len(shown) > 1 else "EXAMPLE"), ".nf"] + [escaped(line) for line in shown] + [".fi"]
    return lines


def page(name, abstract, lines, also):
    head = '.TH "%s" 1 "%s" "cfsoci %s" "cfsoci"' % (escaped(name.upper()), date, release)
    return "\n".join([head, ".SH NAME", escaped(name) + " \\- " + escaped(abstract.rstrip(".")), *lines, ".SH SEE ALSO", also]) + "\n"


def write(name, text):
    with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
        file.write(text)


# The reference, as an article of the documentation.


def plain(argument):
    names = sorted((("-" if n["kind"] == "short" else "--") + n["name"] for n in argument.get("names") or []), key=len)
    value = argument.get("valueName", "")
    if not names:
        return "`%s`" % value.upper()
    return ", ".join("`%s%s`" % (name, " " + value if argument["kind"] == "option" and name == names[-1] else "") for name in names).replace("|", "\\|")


def rows(arguments):
    for argument in arguments:
        text = " ".join((argument.get("abstract", "") + " " + argument.get("discussion", "")).split())
        if argument.get("defaultValue") and argument["kind"] == "option":
            text += " Default: `%s`." % argument["defaultValue"]
        yield "| %s | %s |" % (plain(argument), text.replace("|", "\\|").replace("<", "&lt;"))


def leaves(prefix, command):
    below = [c for c in command.get("subcommands") or [] if c["commandName"] != "help" and c.get("shouldDisplay", True)]
    path = prefix + " " + command["commandName"]
    return [leaf for c in below for leaf in leaves(path, c)] if below else [(path, command)]


def reference():
    lines = ["# Commands and Options", "", "Every command of `cfsoci` with its arguments and options.", "", "## Overview", ""]
    lines += ["This article is written by `tools/package.d/manual.py` from the description that the program has of its own command line; a test compares",
              "them. `cfsoci help COMMAND` shows the same, and the packages have a manual page for each command.", ""]
    lines += ["## Options of all commands", "", "They may stand before or after the command's name.", "", "| option | meaning |", "| --- | --- |"]
    lines += rows(a for a in root["arguments"] if a.get("shouldDisplay", True))
    for command in root["subcommands"]:
        if command["commandName"] == "help" or not command.get("shouldDisplay", True):
            continue
        for path, leaf in leaves("cfsoci", command):
            lines += ["", "## " + path, "", " ".join(leaf["abstract"].split())]
            arguments = [argument for section in own(leaf).values() for argument in section]
            if arguments:
                lines += ["", "| argument or option | meaning |", "| --- | --- |"] + list(rows(arguments))
    return "\n".join(lines) + "\n"


if folder is None:
    print(reference(), end="")
    sys.exit()

commands = [c for c in root["subcommands"] if c["commandName"] != "help" and c.get("shouldDisplay", True)]
also = "\\fBcfsoci\\fR(1), \\fBcfsoci\\-repository\\fR(5), \\fBmount.composefs\\fR(8)"
table = []
for command in commands:
    name = command["commandName"]
    below = [c for c in command.get("subcommands") or [] if c["commandName"] != "help"]
    lines = [".SH SYNOPSIS"]
    leaves = [("cfsoci %s %s" % (name, c["commandName"]), c) for c in below] or [("cfsoci " + name, command)]
    for path, leaf in leaves:
        lines += [synopsis(path, leaf), ".br"]
    lines += described([name], command, 0)
    for c in below:
        lines += described([name, c["commandName"]], c, 1)
    lines += [".SH GLOBAL OPTIONS", "The options that all commands have are described in \\fBcfsoci\\fR(1)."]
    write("cfsoci-%s.1" % name, page("cfsoci-" + name, command["abstract"], lines, also))
    table += [".TP", "\\fBcfsoci\\-%s\\fR(1)" % escaped(name), paragraphs(command["abstract"])]

with open(os.path.join(here, "man/cfsoci.1.in"), encoding="utf-8") as file:
    overview = file.read()
options = []
for argument in root["arguments"]:
    if argument.get("shouldDisplay", True):
        options += entry(argument)
overview = overview.replace("@DATE@", date).replace("@VERSION@", release)
overview = overview.replace("@COMMANDS@", "\n".join(table)).replace("@OPTIONS@", "\n".join(options))
write("cfsoci.1", overview)
for name in ("cfsoci-repository.5", "mount.composefs.8", "mkcomposefs.1", "composefs-info.1"):
    with open(os.path.join(here, "man", name + ".in"), encoding="utf-8") as file:
        write(name, file.read().replace("@DATE@", date).replace("@VERSION@", release))
