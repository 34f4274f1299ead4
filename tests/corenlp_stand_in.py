"""A stand-in for Stanford CoreNLP, so that all of SPICE but the parser runs: each word of a caption is a noun.

`build(folder)` makes what pycocoevalcap's folder looks like once CoreNLP lies in it; needs javac.
"""

import shutil
import subprocess
import zipfile
from pathlib import Path

CLASSES = {
    "pipeline.Annotation": """
        public class Annotation implements edu.stanford.nlp.util.CoreMap {
            public final String text;
            public Annotation(String text) { this.text = text; }
            @SuppressWarnings("unchecked")
            public <V> V get(Class<? extends edu.stanford.nlp.util.Key<V>> key) {
                if (key.getSimpleName().equals("SentencesAnnotation")) return (V) java.util.List.of(this);
                return (V) new edu.stanford.nlp.semgraph.SemanticGraph(text);
            }
        }""",
    "pipeline.StanfordCoreNLP": """
        public class StanfordCoreNLP {
            public StanfordCoreNLP(java.util.Properties settings) { System.out.println("loading"); }
            public void annotate(Iterable<Annotation> captions) {
                for (Annotation caption : captions) {
                    System.err.println("parsed: " + caption.text);
                    if (caption.text.equals("halt")) Runtime.getRuntime().halt(3);
                }
            }
        }""",
    "util.Key": "public interface Key<V> {}",
    "util.CoreMap": "public interface CoreMap { <V> V get(Class<? extends Key<V>> key); }",
    "util.MapFactory": """
        public class MapFactory<K, V> {
            public static <K, V> MapFactory<K, V> hashMapFactory() { return new MapFactory<>(); }
        }""",
    "ling.CoreAnnotations": """
        public class CoreAnnotations {
            public static class SentencesAnnotation
                implements edu.stanford.nlp.util.Key<java.util.List<edu.stanford.nlp.util.CoreMap>> {}
        }""",
    "ling.IndexedWord": """
        public class IndexedWord {
            private final String word;
            public IndexedWord(String word) { this.word = word; }
            public String lemma() { return word; }
            public String value() { return word; }
        }""",
    "semgraph.SemanticGraph": """
        public class SemanticGraph {
            public final String[] words;
            public SemanticGraph(String text) { words = text.isBlank() ? new String[0] : text.trim().split(" +"); }
        }""",
    "semgraph.SemanticGraphCoreAnnotations": """
        public class SemanticGraphCoreAnnotations {
            public static class CollapsedCCProcessedDependenciesAnnotation
                implements edu.stanford.nlp.util.Key<SemanticGraph> {}
        }""",
    "semgraph.semgrex.SemgrexPattern": """
        public class SemgrexPattern {
            private final String pattern;
            private SemgrexPattern(String pattern) { this.pattern = pattern; }
            public static SemgrexPattern compile(String pattern) { return new SemgrexPattern(pattern); }
            public SemgrexMatcher matcher(edu.stanford.nlp.semgraph.SemanticGraph graph) {
                boolean noun = pattern.equals("{tag:/NNP?S?/}=word");
                return new SemgrexMatcher(noun ? graph.words : new String[0]);
            }
        }""",
    "semgraph.semgrex.SemgrexMatcher": """
        public class SemgrexMatcher {
            private final String[] words;
            private int next = 0;
            SemgrexMatcher(String[] words) { this.words = words; }
            public boolean find() { return next++ < words.length; }
            public boolean findNextMatchingNode() { return false; }
            public edu.stanford.nlp.ling.IndexedWord getNode(String name) {
                return new edu.stanford.nlp.ling.IndexedWord(words[next - 1]);
            }
        }""",
    "scenegraph.SemanticGraphEnhancer": """
        public class SemanticGraphEnhancer {
            public static void processQuanftificationModifiers(edu.stanford.nlp.semgraph.SemanticGraph graph) {}
            public static void collapseCompounds(edu.stanford.nlp.semgraph.SemanticGraph graph) {}
            public static void collapseParticles(edu.stanford.nlp.semgraph.SemanticGraph graph) {}
            public static void resolvePronouns(edu.stanford.nlp.semgraph.SemanticGraph graph) {}
        }""",
    "graph.DirectedMultiGraph": """
        public class DirectedMultiGraph<V, E> {
            private final java.util.Set<V> nodes = new java.util.LinkedHashSet<>();
            public DirectedMultiGraph(edu.stanford.nlp.util.MapFactory<V, java.util.Map<V, java.util.List<E>>> outer,
                                      edu.stanford.nlp.util.MapFactory<V, java.util.List<E>> inner) {}
            public boolean addVertex(V node) { return nodes.add(node); }
            public java.util.Set<V> getAllVertices() { return nodes; }
            public java.util.List<E> getAllEdges() { return new java.util.ArrayList<>(); }
        }""",
}


def build(folder: Path, installed: Path) -> None:
    """`folder`/pycocoevalcap/spice: the jars of `installed`, and CoreNLP's two."""
    lib = folder / "pycocoevalcap" / "spice" / "lib"
    lib.mkdir(parents=True)
    shutil.copy(installed / "spice-1.0.jar", lib.parent)  # Java would follow a link, and look for lib there
    for jar in (installed / "lib").glob("*.jar"):
        if "corenlp" not in jar.name:
            (lib / jar.name).symlink_to(jar)
    sources = []
    for name, body in CLASSES.items():
        source = folder / "source" / f"{name.rpartition('.')[2]}.java"
        source.parent.mkdir(exist_ok=True)
        source.write_text(f"package edu.stanford.nlp.{name.rpartition('.')[0]};\n{body}\n")
        sources.append(str(source))
    classes = folder / "classes"
    subprocess.run(["javac", "-d", str(classes), *sources], check=True)
    with zipfile.ZipFile(lib / "stanford-corenlp-3.6.0.jar", "w") as jar:
        for file in classes.rglob("*.class"):
            jar.write(file, file.relative_to(classes))
    with zipfile.ZipFile(lib / "stanford-corenlp-3.6.0-models.jar", "w"):
        pass
