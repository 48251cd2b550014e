"""Raw pictures to triplets: boxes, masks, joints, the sentence, and gates that say how good each triplet is.

raw          what a folder of raw pictures holds.       options, thresholds   what is asked for.
backends     the models, behind protocols.              store, stages         each model over all pictures, cached.
choose       which box is whose.                        masks, joints         what is made of the models' answers.
measures     numbers between two pictures of a subject. gates                 numbers to pass, warn or reject.
labelme, coco, edits   files that people edit.          write, review, report what is left behind.
annotate     all of it in order.
"""
