import edu.anu.spice.Evaluation;
import edu.anu.spice.SceneGraph;
import edu.anu.spice.SpiceParser;
import edu.anu.spice.TupleSet;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.json.simple.JSONArray;
import org.json.simple.parser.JSONParser;

/**
 * SPICE for as long as standard input is open. A line in: [["caption", ["reference", ...]], ...];
 * a line out: the F-measure of each caption.
 *
 * <p>The main program of SPICE loads its parser anew for each file, and writes with a JavaScript
 * engine that Java has not had since version 15.
 */
public class SpiceServer {
    private static final int REMEMBERED = 500_000; // sentences: some 500 MB

    /** Parses a sentence once: references come back with every caption of their image. */
    private static class Parser extends SpiceParser {
        private final Map<String, ArrayList<ArrayList<String>>> known = new LinkedHashMap<>(1024, 0.75f, true) {
            @Override
            protected boolean removeEldestEntry(Map.Entry<String, ArrayList<ArrayList<String>>> eldest) {
                return size() > REMEMBERED;
            }
        };

        Parser() {
            super(null, Runtime.getRuntime().availableProcessors(), true); // as SPICE runs by default
        }

        @Override
        protected Map<String, ArrayList<ArrayList<String>>> loadTuples(List<String> sentences) {
            Map<String, ArrayList<ArrayList<String>>> tuples = new HashMap<>();
            Set<String> fresh = new LinkedHashSet<>();
            for (String sentence : sentences) {
                ArrayList<ArrayList<String>> found = known.get(sentence);
                if (found == null) {
                    fresh.add(sentence);
                } else {
                    tuples.put(sentence, found);
                }
            }
            Map<String, ArrayList<ArrayList<String>>> parsed = generateTuples(new ArrayList<>(fresh));
            known.putAll(parsed);
            tuples.putAll(parsed);
            return tuples;
        }
    }

    public static void main(String[] arguments) throws Exception {
        PrintStream answers = System.out;
        System.setOut(System.err); // whatever the libraries print is no answer
        BufferedReader questions = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        Parser parser = new Parser();
        for (String line = questions.readLine(); line != null; line = questions.readLine()) {
            answers.println(scores(parser, (JSONArray) new JSONParser().parse(line)));
            answers.flush();
        }
    }

    private static List<Double> scores(Parser parser, JSONArray pairs) {
        List<String> captions = new ArrayList<>();
        List<String> references = new ArrayList<>();
        List<Integer> counts = new ArrayList<>();
        for (Object each : pairs) {
            JSONArray pair = (JSONArray) each;
            captions.add((String) pair.get(0));
            JSONArray ofImage = (JSONArray) pair.get(1);
            counts.add(ofImage.size());
            for (Object reference : ofImage) {
                references.add((String) reference);
            }
        }
        List<SceneGraph> wanted = parser.parseCaptions(references, counts);
        List<SceneGraph> said = parser.parseCaptions(captions);
        List<Double> scores = new ArrayList<>();
        for (int i = 0; i < captions.size(); i++) {
            scores.add(new Evaluation(new TupleSet(said.get(i)), new TupleSet(wanted.get(i)), false, true).f);
        }
        return scores; // printed as [0.5, 0.25]: JSON
    }
}
